//! Forgetting the store's past, so that it does not grow with every write. What is forgotten was overwritten or deleted
//! at least [`HISTORY_KEPT`] ago: long enough for every read at a revision and for a watch that lost its connection, and
//! a watch that is still further behind is told so and lists again.
//!
//! Every scheduler does it, unfenced: compacting a revision already compacted is no error, and none compacts what is
//! younger than it has itself seen to be old.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use muster_state::Revision;
use tokio::time::Instant;

use crate::shared::Shared;

/// How long the past can still be read.
const HISTORY_KEPT: Duration = Duration::from_secs(120);
/// Between two compactions.
const EVERY: Duration = Duration::from_secs(15);

/// Compacts now and then, for ever.
pub(crate) async fn keep_compacting(shared: Arc<Shared>) {
    let state = &*shared.options.state;
    let mut seen: VecDeque<(Instant, Revision)> = VecDeque::new();
    loop {
        tokio::time::sleep(EVERY).await;
        match state.revision().await {
            Ok(revision) => seen.push_back((Instant::now(), revision)),
            Err(error) => tracing::debug!(%error, "the store's revision is not known now"),
        }
        let mut old = None;
        while seen.front().is_some_and(|(at, _)| at.elapsed() >= HISTORY_KEPT) {
            old = seen.pop_front();
        }
        if let Some((_, revision)) = old
            && let Err(error) = state.compact(revision).await
        {
            tracing::warn!(revision, %error, "the store could not be compacted; later");
        }
    }
}
