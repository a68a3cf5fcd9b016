//! What the engine counts for whoever watches it. Plain numbers since they were last taken: the engine decides nothing by
//! them, and knows nothing of metrics.

use std::collections::BTreeMap;

use muster_proto::v1::RefusalReason;

use super::{Engine, Link};

/// What happened since the counts were last taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Committed launches that were not sent: their executor had moved on.
    pub launches_withheld: u64,
    /// Launches that executors refused.
    pub launches_refused: BTreeMap<RefusalReason, u64>,
    /// Attempts that waited on an executor for too long, and were asked back.
    pub attempts_asked_back: u64,
    /// Tasks given up because their executors went down with them.
    pub tasks_given_up: u64,
    /// Events that changed nothing: late, repeated, or about what is not there.
    pub events_ignored: u64,
    /// Statuses whose effect is committed.
    pub statuses_settled: u64,
    /// Executors that are gone though nobody stopped them.
    pub executors_lost: u64,
}

impl Engine {
    /// The counts since the last call.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    /// How many executors stand in each way to this scheduler; every way is named.
    pub(crate) fn executors_by_link(&self) -> [(&'static str, i64); 4] {
        let count = |link: Link| self.executors.values().filter(|executor| executor.link == link).count();
        [("home", Link::Home), ("peer", Link::Peer), ("out_of_reach", Link::None), ("gone", Link::Gone)]
            .map(|(name, link)| (name, i64::try_from(count(link)).unwrap_or(i64::MAX)))
    }
}
