//! What the verbs that go on until they are stopped have in common.

use std::future::Future;

use crate::context::Context;
use crate::failure::Failure;
use crate::signals::Signals;

/// Ends in good order, unless a second signal says: at once.
pub(crate) async fn stop(
    context: &Context,
    signals: &mut Signals,
    stopping: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    context.console.note("stopping; once more to leave at once");
    tokio::select! {
        biased;
        signal = signals.next() => Err(Failure::silent(signal)),
        stopped = stopping => stopped,
    }
}
