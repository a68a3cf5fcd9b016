//! The strings by which the rest of the executor holds an attempt: go, stop, over.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

/// Why an attempt is to end before its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopCause {
    /// A scheduler asked for it.
    Cancelled,
    /// Its job's owner asked for it back, and it had not begun.
    GivenBack,
    /// A higher attempt of the same task arrived.
    Replaced,
    /// No scheduler could be reached for longer than the job allows.
    Disconnected,
    /// The executor stops.
    ExecutorStops,
}

/// Shared between the table and the attempt's own task. Each signal is given once and never taken back.
#[derive(Debug, Default)]
pub(crate) struct Control {
    cause: OnceLock<StopCause>,
    /// End now.
    pub(crate) stop: CancellationToken,
    /// The resources are yours.
    pub(crate) go: CancellationToken,
    /// It is over; nothing more is written to its logs.
    pub(crate) over: CancellationToken,
}

impl Control {
    /// Asks the attempt to end. The first cause counts.
    pub(crate) fn stop(&self, cause: StopCause) {
        if self.cause.set(cause).is_ok() {
            self.stop.cancel();
        }
    }

    /// Why, once `stop` is given.
    pub(crate) fn cause(&self) -> Option<StopCause> {
        self.cause.get().copied()
    }
}
