//! `muster executor`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::daemon;
use crate::configuration::Mode;
use crate::context::Context;
use crate::embedded::{EXECUTOR_STOP_TIMEOUT, ended, late, not_started};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::metrics;
use crate::offer::Offer;
use crate::output::views::Started;
use crate::quantity;
use crate::signals::Signals;

/// Start an executor, which offers this machine to the cluster at --schedulers
///
/// Ctrl-C ends its tasks, which the cluster then runs elsewhere. Whatever ends it, not even its kill leaves a task's
/// processes behind.
#[derive(Debug, Args)]
pub(crate) struct Executor {
    /// How work comes here [default: push]
    #[arg(long, value_enum, env = "MUSTER_MODE", hide_env_values = true, value_name = "MODE")]
    mode: Option<Mode>,
    /// Where outputs, logs and launches are served; port 0 takes a free one [default: 127.0.0.1:0]
    #[arg(long, env = "MUSTER_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How others reach it, HOST:PORT [default: the address it listens on]
    #[arg(long, env = "MUSTER_ADVERTISE", hide_env_values = true, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// Where everything is kept; one executor at a time may use it [default: ~/.local/share/muster/executor]
    #[arg(long, env = "MUSTER_DATA_DIR", hide_env_values = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// This executor's name [default: a random one, kept in the data directory]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// A label, for placement; may be given several times
    #[arg(long = "label", value_parser = quantity::pair, value_name = "KEY=VALUE")]
    labels: Vec<(String, String)>,
    /// Serve metrics for Prometheus at http://ADDRESS/metrics [default: not at all]
    #[arg(long, env = "MUSTER_METRICS", hide_env_values = true, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Listen beyond this machine, though nobody is authenticated
    #[arg(long)]
    allow_remote: bool,
    #[command(flatten)]
    offer: Offer,
}

impl Executor {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut signals = Signals::listen()?;
        let file = &context.settings.file.executor;
        let data_dir = match self.data_dir {
            Some(named) => named,
            None => context.settings.data_dir(None)?.join("executor"),
        };
        let mut options = muster_executor::Options::new(&data_dir, context.settings.schedulers_or_default());
        options.mode = match self.mode.or(file.mode).unwrap_or(Mode::Push) {
            Mode::Push => muster_executor::Mode::Push,
            Mode::Pull => muster_executor::Mode::Pull,
        };
        options.listen = self.listen.or(file.listen).unwrap_or(options.listen);
        options.advertise = self.advertise.or_else(|| file.advertise.clone());
        options.id = self.id.or_else(|| file.id.clone());
        options.allow_remote = self.allow_remote || file.allow_remote.unwrap_or(false);
        self.offer.apply(file, &mut options);
        options.labels.extend(self.labels);
        let port = metrics::Port::open(self.metrics.or(file.metrics), options.allow_remote).await?;
        let handle =
            muster_executor::Executor::start(options).await.map_err(|error| not_started("executor", &error))?;
        if let Some(port) = port {
            let shown = handle.clone();
            port.serve(move || shown.metrics());
        }
        context.output.one(&Started {
            what: "executor",
            id: Some(handle.executor_id().to_string()),
            address: handle.address().to_string(),
            data_dir: Some(data_dir.display().to_string()),
        })?;
        let ended = tokio::select! {
            biased;
            _ = signals.next() => Ok(()),
            () = handle.finished() => Err(ended("executor", "its log says why")),
        };
        let limit = EXECUTOR_STOP_TIMEOUT;
        let stopping = async { tokio::time::timeout(limit, handle.stop()).await.map_err(|_| late(limit)) };
        daemon::stop(context, &mut signals, stopping).await?;
        ended.map(|()| Exit::Success)
    }
}
