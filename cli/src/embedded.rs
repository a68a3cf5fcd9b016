//! A whole cluster in this process: one scheduler and one executor over the embedded store in a data directory. What
//! `muster up` is, and what `muster run` uses where no cluster is configured.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_executor::Executor;
use muster_scheduler::Scheduler;

use crate::exit::Exit;
use crate::failure::Failure;

/// The embedded cluster's name in its store.
const CLUSTER: &str = "embedded";
/// How long a scheduler may take to end in good order: longer than it takes to hand its jobs over.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// And an executor: longer than the default grace of a task (10 s), the delivery of results (5 s) and the handing over of outputs (10 s).
pub(crate) const EXECUTOR_STOP_TIMEOUT: Duration = Duration::from_secs(35);

/// A running one-process cluster.
#[derive(Debug)]
pub(crate) struct Embedded {
    scheduler: muster_scheduler::Handle,
    executor: muster_executor::Handle,
}

impl Embedded {
    /// Starts it over `data_dir`, which is made where it is missing. Jobs that were not finished when the last process
    /// on this directory ended go on.
    pub(crate) async fn start(
        data_dir: &Path,
        listen: SocketAddr,
        allow_remote: bool,
        offer: impl FnOnce(&mut muster_executor::Options),
    ) -> Result<Self, Failure> {
        let unusable = |error: std::io::Error| {
            Failure::usage(format!("the data directory {} cannot be used: {error}", data_dir.display()))
                .help("name another one with --data-dir or MUSTER_DATA_DIR")
        };
        tokio::fs::create_dir_all(data_dir).await.map_err(unusable)?;
        // An absolute path: tasks run in directories of their own.
        let data_dir = std::path::absolute(data_dir).map_err(unusable)?;
        let state = open_state(&state_url(&data_dir), CLUSTER).await?;
        let options = muster_scheduler::Options { listen, allow_remote, ..muster_scheduler::Options::new(state) };
        let scheduler = Scheduler::start(options).await.map_err(|error| not_started("scheduler", &error))?;
        let address = scheduler.address().to_string();
        let mut options = muster_executor::Options::new(data_dir.join("executor"), vec![address]);
        offer(&mut options);
        match Executor::start(options).await {
            Ok(executor) => Ok(Self { scheduler, executor }),
            Err(error) => {
                scheduler.stop().await;
                Err(not_started("executor", &error))
            }
        }
    }

    /// Where the scheduler listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.scheduler.address()
    }

    /// Waits until a part of it ends by itself, which is a failure. Cancel-safe.
    pub(crate) async fn failed(&self) -> Failure {
        tokio::select! {
            result = self.scheduler.finished() => scheduler_ended(result),
            () = self.executor.finished() => ended("executor", "its log says why"),
        }
    }

    /// Ends it in good order: the executor first, so that the scheduler hears of it.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let stopping = async {
            self.executor.stop().await;
            self.scheduler.stop().await;
        };
        tokio::time::timeout(EXECUTOR_STOP_TIMEOUT, stopping).await.map_err(|_| late(EXECUTOR_STOP_TIMEOUT))
    }
}

/// The store's place in a data directory.
fn state_url(data_dir: &Path) -> String {
    format!("redb://{}", data_dir.join("state").display())
}

/// Opens a store, with an error for people.
pub(crate) async fn open_state(
    url: &str,
    cluster: &str,
) -> Result<std::sync::Arc<dyn muster_state::StateBackend>, Failure> {
    // What follows may be a password.
    let shown = url.split_once('?').map_or(url, |(address, _)| address);
    muster_state::open(url, cluster).await.map_err(|error| {
        Failure::new(Exit::Unreachable, format!("the store {shown} cannot be opened: {error}")).help(
            "a redb store belongs to one process at a time: if `muster up` is running on it, talk to that one with \
             --schedulers; an etcd store needs its servers to answer",
        )
    })
}

/// A part did not start.
pub(crate) fn not_started(part: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    // What was asked for is refused, as opposed to what went wrong.
    let refused = matches!(error.downcast_ref(), Some(muster_scheduler::Error::NotLoopback(_)))
        || matches!(error.downcast_ref(), Some(muster_executor::Error::BadOption { .. }));
    let exit = if refused { Exit::Usage } else { Exit::Failed };
    Failure::new(exit, format!("the {part} did not start: {error}"))
}

/// A part ended though nobody asked it to.
pub(crate) fn ended(part: &str, reason: &str) -> Failure {
    Failure::new(Exit::Failed, format!("the {part} ended by itself: {reason}"))
        .help("start it again: jobs are kept and go on; -v says more")
}

/// The same of a scheduler, with its reason.
pub(crate) fn scheduler_ended(result: Result<(), muster_scheduler::Error>) -> Failure {
    ended("scheduler", &result.err().map_or_else(|| "it says no reason".to_owned(), |error| error.to_string()))
}

/// A part did not stop in time.
pub(crate) fn late(limit: Duration) -> Failure {
    Failure::new(Exit::Failed, format!("it did not stop within {limit:?}; what was running is ended now"))
}

/// A fresh directory for one run, removed with all that is in it.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    pub(crate) fn create() -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let path = std::env::temp_dir().join(format!("muster-run-{:016x}", rand::random::<u64>()));
        // For this user alone: tasks' outputs are nobody else's business.
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            Failure::usage(format!("the directory {} cannot be made: {error}", path.display()))
                .help("set TMPDIR to a directory that can be written, or name one to keep with --data-dir")
        })?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary directory could not be removed");
        }
    }
}
