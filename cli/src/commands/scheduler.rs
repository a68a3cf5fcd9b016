//! `muster scheduler`

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use muster_scheduler::CallbackSecret;

use super::daemon;
use crate::configuration::DEFAULT_ADDRESS;
use crate::context::Context;
use crate::embedded::{STOP_TIMEOUT, late, not_started, open_state, scheduler_ended};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::metrics;
use crate::output::views::Started;
use crate::quantity;
use crate::signals::Signals;

/// The cluster's name where none is given: one store can hold several clusters.
const CLUSTER: &str = "default";

/// Start a scheduler; several on the same store share the work and stand in for each other
#[derive(Debug, Args)]
pub(crate) struct Scheduler {
    /// The store: etcd://HOST:PORT,…, redb://DIR or memory:
    #[arg(long, env = "MUSTER_STATE", hide_env_values = true, value_name = "URL")]
    state: Option<String>,
    /// The cluster's name in the store [default: default]
    #[arg(long, env = "MUSTER_CLUSTER", hide_env_values = true, value_name = "NAME")]
    cluster: Option<String>,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:7077]
    #[arg(long, env = "MUSTER_LISTEN", hide_env_values = true, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// How others reach it, HOST:PORT [default: the address it listens on]
    #[arg(long, env = "MUSTER_ADVERTISE", hide_env_values = true, value_name = "ADDRESS")]
    advertise: Option<String>,
    /// This scheduler's name [default: a random one]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
    /// A dead scheduler's jobs are taken over after so long [default: 10s]
    #[arg(long, value_parser = quantity::duration, value_name = "DURATION")]
    session_ttl: Option<Duration>,
    /// An executor that has been out of reach for so long is declared lost [default: 30s]
    #[arg(long, value_parser = quantity::duration, value_name = "DURATION")]
    lost_after: Option<Duration>,
    /// The store's quota, where it does not tell it itself (etcd before 3.6: --quota-backend-bytes) [default: 2GiB]
    #[arg(long, env = "MUSTER_STORE_QUOTA", hide_env_values = true, value_parser = quantity::memory, value_name = "BYTES")]
    store_quota: Option<u64>,
    /// Unfinished jobs that it owns at most; each costs memory [default: 20000]
    #[arg(long, value_name = "NUMBER")]
    max_jobs: Option<usize>,
    /// Tasks of its jobs at most; a million takes some hundred megabytes of memory [default: 5000000]
    #[arg(long, value_name = "NUMBER")]
    max_tasks: Option<u64>,
    /// Serve metrics for Prometheus at http://ADDRESS/metrics [default: not at all]
    #[arg(long, env = "MUSTER_METRICS", hide_env_values = true, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Sign what callbacks of groups are sent, with the content of this file [default: not signed]
    #[arg(long, env = "MUSTER_CALLBACK_SECRET_FILE", hide_env_values = true, value_name = "FILE")]
    callback_secret_file: Option<PathBuf>,
    /// Listen beyond this machine, though nobody is authenticated
    #[arg(long)]
    allow_remote: bool,
}

impl Scheduler {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut signals = Signals::listen()?;
        let file = &context.settings.file.scheduler;
        let url = self.state.or_else(|| file.state.clone()).ok_or_else(|| {
            Failure::usage("a scheduler needs a store")
                .help("name one with --state or MUSTER_STATE: etcd://127.0.0.1:2379, redb://DIR or memory:")
        })?;
        let cluster = self.cluster.or_else(|| file.cluster.clone()).unwrap_or_else(|| CLUSTER.to_owned());
        let state = open_state(&url, &cluster).await?;
        let mut options = muster_scheduler::Options::new(state);
        let usual = || DEFAULT_ADDRESS.parse().expect("the default is an address");
        options.listen = self.listen.or(file.listen).unwrap_or_else(usual);
        options.advertise = self.advertise.or_else(|| file.advertise.clone());
        options.allow_remote = self.allow_remote || file.allow_remote.unwrap_or(false);
        options.scheduler_id = self.id.unwrap_or(options.scheduler_id);
        options.session_ttl = self.session_ttl.or(file.session_ttl).unwrap_or(options.session_ttl);
        options.lost_after = self.lost_after.or(file.lost_after).unwrap_or(options.lost_after);
        options.store_quota = self.store_quota.or(file.store_quota).unwrap_or(options.store_quota);
        if let Some(path) = self.callback_secret_file.or_else(|| file.callback_secret_file.clone()) {
            options.callback_secret = Some(callback_secret(&path)?);
        }
        let owned_max = &mut options.owned_max;
        owned_max.jobs = self.max_jobs.or(file.max_jobs).unwrap_or(owned_max.jobs);
        owned_max.tasks = self.max_tasks.or(file.max_tasks).unwrap_or(owned_max.tasks);
        let id = options.scheduler_id.clone();
        let port = metrics::Port::open(self.metrics.or(file.metrics), options.allow_remote).await?;
        let handle =
            muster_scheduler::Scheduler::start(options).await.map_err(|error| not_started("scheduler", &error))?;
        if let Some(port) = port {
            let shown = handle.clone();
            port.serve(move || shown.metrics());
        }
        let address = handle.address().to_string();
        context.output.one(&Started { what: "scheduler", id: Some(id), address, data_dir: None })?;
        let ended = tokio::select! {
            biased;
            _ = signals.next() => Ok(()),
            result = handle.finished() => Err(scheduler_ended(result)),
        };
        let stopping =
            async { tokio::time::timeout(STOP_TIMEOUT, handle.stop()).await.map_err(|_| late(STOP_TIMEOUT)) };
        daemon::stop(context, &mut signals, stopping).await?;
        ended.map(|()| Exit::Success)
    }
}

/// Read once: who changes it starts the schedulers anew, one by one.
fn callback_secret(path: &Path) -> Result<CallbackSecret, Failure> {
    let unusable = |why: String| {
        Failure::usage(format!("--callback-secret-file: {} cannot be used: {why}", path.display()))
            .help("name a file that has the secret and that this process may read, for instance made by `openssl rand -hex 32`")
    };
    let content = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    CallbackSecret::new(content.trim_ascii_end()).map_err(unusable)
}
