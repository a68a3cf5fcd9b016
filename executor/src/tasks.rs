//! The executor's long-lived asynchronous parts, each watched: one that panics or ends early is noticed and decided on.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

/// All parts of one executor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    /// Given when a part without which the executor cannot go on has ended.
    pub(crate) broken: CancellationToken,
    /// Locked for a push or a take only.
    running: Arc<Mutex<Vec<AbortHandle>>>,
}

/// Ended parts are forgotten each time this many have been added.
const SWEEP_EVERY: usize = 1024;

impl Tasks {
    /// Starts a part that must not end before `until` is given. If it does, the executor stops.
    pub(crate) fn spawn_vital<F>(&self, name: &'static str, until: CancellationToken, part: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let broken = self.broken.clone();
        self.spawn(async move {
            let ended = AssertUnwindSafe(part).catch_unwind().await;
            if !until.is_cancelled() {
                tracing::error!(part = name, panicked = ended.is_err(), "a vital part ended; the executor stops");
                broken.cancel();
            }
        });
    }

    /// Starts something short-lived that answers for itself.
    pub(crate) fn spawn<F>(&self, part: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handle = tokio::spawn(part).abort_handle();
        let mut running = self.running.lock().expect("no holder of this lock panics");
        if running.len() >= SWEEP_EVERY && running.len().is_power_of_two() {
            running.retain(|task| !task.is_finished());
        }
        running.push(handle);
    }

    /// Ends everything at once, as a crash would.
    pub(crate) fn abort_all(&self) {
        for task in self.running.lock().expect("no holder of this lock panics").drain(..) {
            task.abort();
        }
    }
}
