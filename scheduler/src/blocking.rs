//! Work that would keep the others on its thread waiting: it runs on a thread of its own. In a simulation it runs here
//! and now, for the order in which threads end is nobody's seed.

use tokio::task::JoinError;

use crate::faults;

/// Runs it. An error means that the runtime is closing, or that it panicked.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    if faults::is_set("one-thread") {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
