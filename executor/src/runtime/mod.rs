//! What runs a task: processes now, containers and query engines later.
//!
//! A runtime starts things, tells when they end, and passes signals on. Time-outs, retries, inputs, outputs and the
//! meaning of an exit are the same for all runtimes, and are not its business.

pub(crate) mod cgroup;
pub(crate) mod process;

use std::path::PathBuf;

use async_trait::async_trait;
use muster_proto::v1;

pub use crate::keys::AttemptKey;
pub use crate::supervisor::wire::HowEnded;

/// One attempt as a runtime sees it. All that is named exists, but for the logs.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Which attempt.
    pub key: AttemptKey,
    /// What to do.
    pub work: v1::stage_work::Work,
    /// The whole environment, nothing else is inherited.
    pub env: Vec<(String, String)>,
    /// Where it runs.
    pub directory: PathBuf,
    /// Holds the text of a script, if the work is one.
    pub script: PathBuf,
    /// Gets what it prints. Made, with its directory, when the first byte comes.
    pub stdout: PathBuf,
    /// Gets what it prints as errors.
    pub stderr: PathBuf,
    /// How much is kept of stdout, and of stderr, in bytes.
    pub log_cap_bytes: u64,
    /// Limit of memory in bytes; 0: none.
    pub memory_bytes: u64,
}

/// Why an attempt could not be started.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotStarted {
    /// The task's own fault, in words for its author.
    #[error("{0}")]
    Task(String),
    /// The executor's fault: the attempt counts as lost, not as failed.
    #[error("{0}")]
    Runtime(String),
}

/// How an attempt's work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself or by a signal.
    Process {
        /// What the kernel says.
        how: HowEnded,
        /// The runtime's own record says that memory ran out. Never guessed from the exit.
        out_of_memory: bool,
    },
    /// The runtime lost it; whatever was left of it is ended.
    Lost,
}

/// Signals that a running task can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskSignal {
    /// Please end.
    Terminate,
    /// End.
    Kill,
}

/// Runs tasks.
#[async_trait]
pub trait TaskRuntime: Send + Sync + 'static {
    /// Starts it. Not cancel-safe: if the caller goes away the task may run; its end must then be awaited by nobody.
    async fn start(&self, setting: Setting) -> Result<Box<dyn RunningTask>, NotStarted>;
    /// Ends everything and takes no more.
    async fn close(&self);
}

impl std::fmt::Debug for dyn TaskRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TaskRuntime")
    }
}

/// A task that was started.
#[async_trait]
pub trait RunningTask: Send {
    /// When, in milliseconds since the Unix epoch.
    fn started_at_ms(&self) -> u64;
    /// The process id, where there is one.
    fn pid(&self) -> Option<u32>;
    /// Waits for the end. Cancel-safe; after it has returned once, it must not be called again.
    async fn wait(&mut self) -> Ended;
    /// Signals the task with all its descendants.
    async fn signal(&self, signal: TaskSignal);
}
