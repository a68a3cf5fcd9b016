//! What a launch says of all of its attempts.

use std::sync::Arc;

use muster_graph::ids::JobId;

use crate::keys::Fence;
use crate::resources::Resources;

/// What the attempts of one launch group share.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) job: JobId,
    pub(crate) fence: Fence,
    pub(crate) owner_address: Arc<str>,
    pub(crate) stage: u32,
    /// Of a stage in a nested job; empty: the stage's name.
    pub(crate) stage_path: Arc<str>,
    pub(crate) spec_digest: Arc<str>,
    pub(crate) inputs_revision: u64,
    pub(crate) need: Arc<Resources>,
    /// Without a scheduler for so long the attempts run elsewhere; 0: never.
    pub(crate) lost_after_ms: u64,
}

impl Group {
    /// How long before that this executor ends the attempts by itself: a quarter of the time, but no more than is needed
    /// to end a task that listens.
    pub(crate) fn ends_ahead_ms(lost_after_ms: u64) -> u64 {
        const MOST_MS: u64 = 5_000;
        (lost_after_ms / 4).min(MOST_MS)
    }
}
