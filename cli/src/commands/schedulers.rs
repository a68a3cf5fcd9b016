//! `muster schedulers`

use clap::{Args, Subcommand};
use muster_proto::v1;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::scheduler::Scheduler;

/// List the cluster's schedulers that are alive
#[derive(Debug, Args)]
pub(crate) struct Schedulers {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Drain(Drain),
}

/// Have a scheduler hand its jobs and executors over to the others and take no new ones
///
/// It goes on running without jobs, and can be stopped without any delay for them. With no other scheduler to hand
/// them to, it keeps them until there is one.
#[derive(Debug, Args)]
struct Drain {
    /// The scheduler
    #[arg(value_name = "ID")]
    id: String,
    /// Have it take jobs again
    #[arg(long)]
    undo: bool,
}

impl Schedulers {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        match self.verb {
            None => context.output.list(&listed(client.list_schedulers().await?))?,
            Some(Verb::Drain(Drain { id, undo })) => {
                client.drain_scheduler(&id, undo).await?;
                let mut found = client.list_schedulers().await?;
                found.retain(|view| view.scheduler_id == id);
                context.output.list(&listed(found))?;
            }
        }
        Ok(Exit::Success)
    }
}

fn listed(views: Vec<v1::SchedulerView>) -> Vec<Scheduler> {
    views.into_iter().map(Scheduler::from).collect()
}
