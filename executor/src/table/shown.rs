//! What the table shows of itself: to schedulers everything that it holds, to whoever watches how much of it, and to a task
//! what is its own.

use std::collections::BTreeMap;

use muster_graph::ids::JobId;
use muster_proto::v1;

use super::{Entry, Phase, Table};
use crate::keys::AttemptKey;

impl Table {
    /// Everything held, of one job or of all.
    pub(crate) fn held(&self, jobs: Option<&[JobId]>) -> Vec<v1::HeldAttempt> {
        let inside = self.inside();
        let show = |(key, entry): (&AttemptKey, &Entry)| v1::HeldAttempt {
            attempt: Some(key.to_wire()),
            state: match entry.phase {
                Phase::Waiting => v1::HeldState::Waiting,
                Phase::Running => v1::HeldState::Running,
                Phase::Finished => v1::HeldState::Finished,
            } as i32,
        };
        match jobs {
            None => inside.entries.iter().map(show).collect(),
            Some(jobs) => jobs.iter().flat_map(|job| inside.of_job(*job).map(show)).collect(),
        }
    }

    /// What the task of an attempt that has its share is told of its named resources.
    pub(crate) fn told(&self, key: AttemptKey) -> BTreeMap<String, String> {
        let inside = self.inside();
        let Some(Entry { group: Some(group), share: Some(share), .. }) = inside.entries.get(&key) else {
            return BTreeMap::new();
        };
        inside.account.told(&group.need, share)
    }

    /// How many wait, run, and are finished.
    pub(crate) fn by_state(&self) -> [(&'static str, usize); 3] {
        let inside = self.inside();
        [("waiting", Phase::Waiting), ("running", Phase::Running), ("finished", Phase::Finished)]
            .map(|(name, phase)| (name, inside.entries.values().filter(|entry| entry.phase == phase).count()))
    }
}
