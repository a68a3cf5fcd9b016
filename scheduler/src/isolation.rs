//! A scheduler that reaches the store but no executor, while its peers do, owns jobs whose every message takes a way through
//! a peer ([`crate::ways`]). It drains by itself ([`crate::draining`]), until it reaches an executor again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::draining;
use crate::shared::Shared;

/// How often the executors are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Drains this scheduler while it is cut off, for ever. A drain that an operator asked for is the operator's to undo.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = shared.now();
        let Ok(cut_off) = shared.engine.read(move |engine| engine.is_cut_off(now)).await else { return };
        let by_itself = shared.drains_by_itself.load(Ordering::Relaxed);
        let wanted = match (cut_off, by_itself) {
            (true, false) if !*shared.draining.borrow() => true,
            (false, true) => false,
            _ => continue,
        };
        if wanted {
            tracing::error!("no executor can be reached, though peers are at home to some: handing all jobs over");
        }
        shared.drains_by_itself.store(wanted, Ordering::Relaxed);
        if let Err(error) = draining::set(&shared, wanted).await {
            tracing::warn!(%error, draining = wanted, "the peers could not be told; they will be");
        }
    }
}
