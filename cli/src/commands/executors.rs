//! `muster executors`

use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use muster_proto::v1;
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::detail::state;
use crate::output::executor::Executor;
use crate::output::{Cell, Row};
use crate::quantity;

/// List the cluster's executors, the machines that run tasks; drain or remove some
#[derive(Debug, Args)]
pub(crate) struct Executors {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    Drain(Drain),
    Remove(Remove),
}

/// Have executors take no new tasks; what they run goes on
#[derive(Debug, Args)]
struct Drain {
    /// The executors
    #[arg(required = true, value_name = "ID")]
    executors: Vec<String>,
    /// Let them leave as soon as nothing runs there and no unfinished job needs an output from there
    #[arg(long)]
    stop: bool,
    /// With --stop: leave then at the latest; what is not done by then runs elsewhere [default: no limit]
    #[arg(long, value_parser = quantity::duration, value_name = "DURATION", requires = "stop")]
    timeout: Option<Duration>,
    /// Take it back: have them take tasks again, and stay
    #[arg(long, conflicts_with_all = ["stop", "timeout"])]
    undo: bool,
}

/// Give up executors that are out of reach and will not come back
///
/// Jobs that wait for what these had (see `lost_after: never`) run it elsewhere. An executor that comes back nevertheless
/// is told to end what was given up.
#[derive(Debug, Args)]
struct Remove {
    /// The executors
    #[arg(required = true, value_name = "ID")]
    executors: Vec<String>,
}

/// What became of a wish.
#[derive(Debug, Clone, Serialize)]
struct Changed {
    id: String,
    state: &'static str,
}

impl Row for Changed {
    fn name(&self) -> String {
        self.id.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["EXECUTOR", "STATE"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![Cell::new(&self.id), state(self.state)]
    }
}

impl Executors {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        match self.action {
            None => {
                let found = client.list_executors().await?;
                context.output.list(&found.into_iter().map(Executor::from).collect::<Vec<_>>())?;
            }
            Some(Action::Drain(Drain { executors, stop, timeout, undo })) => {
                let timeout_ms = timeout.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1));
                let mut changed = Vec::new();
                for id in executors {
                    let wish = v1::DrainExecutorRequest { executor_id: id.clone(), undo, stop, timeout_ms };
                    client.drain_executor(wish).await?;
                    changed.push(Changed { id, state: if undo { "ready" } else { "draining" } });
                }
                context.output.list(&changed)?;
            }
            Some(Action::Remove(Remove { executors })) => {
                let mut changed = Vec::new();
                for id in executors {
                    client.remove_executor(&id).await?;
                    changed.push(Changed { id, state: "stopped" });
                }
                context.output.list(&changed)?;
            }
        }
        Ok(Exit::Success)
    }
}
