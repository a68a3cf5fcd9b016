//! Which executors this scheduler reaches itself, whatever their homes say of them.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::ids::{ExecutorKey, JobId, Millis};

use super::losses::is_ending;
use super::{Engine, Executor, Link};

/// A way to an executor that has been broken for so long is no hiccup: longer than the executor takes to start again, or
/// its home to notice that it is gone.
const CUT_OFF_AFTER_MS: Millis = 10_000;

impl Executor {
    /// Whether it would hear now of what it is told.
    pub(super) fn hears(&self) -> bool {
        if self.pull {
            // A poll whose caller has gone away is not worth an assignment.
            self.poll.as_ref().is_some_and(|poll| !poll.reply.is_closed())
        } else {
            // Its home may reach it where we do not.
            self.is_reachable() && self.unreached_since.is_none()
        }
    }

    pub(crate) fn is_reachable(&self) -> bool {
        !self.address.is_empty() && matches!(self.link, Link::Home | Link::Peer)
    }

    pub(crate) fn takes_work(&self, now: Millis) -> bool {
        self.hears() && !self.draining && self.full_until <= now
    }
}

impl Engine {
    pub(super) fn reached(&mut self, key: &ExecutorKey, reached: bool, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id).filter(|known| known.key == *key) else { return };
        match reached {
            true => executor.unreached_since = None,
            false => drop(executor.unreached_since.get_or_insert(now)),
        }
    }

    /// Executors that are out of reach or gone, as far as is known here.
    pub(crate) fn executors_away(&self) -> Vec<String> {
        let away = self.executors.values().filter(|executor| executor.away_since.is_some());
        away.map(|executor| executor.key.id.clone()).collect()
    }

    /// Whether every executor that could be sent work is at home with a live peer and has been out of reach from here for
    /// long. One that has its session here reaches us, and so is not cut off; one that fetches its work is not sent any.
    pub(crate) fn is_cut_off(&self, now: Millis) -> bool {
        let mut beyond_reach = false;
        for executor in self.executors.values() {
            match executor.link {
                Link::Home => return false,
                Link::Peer if !executor.pull => {
                    let long_ago = |since: Millis| since.saturating_add(CUT_OFF_AFTER_MS) <= now;
                    if !executor.unreached_since.is_some_and(long_ago) {
                        return false;
                    }
                    beyond_reach = true;
                }
                Link::Peer | Link::None | Link::Gone => {}
            }
        }
        beyond_reach
    }

    /// Jobs with something for an executor that has been out of reach from here for long, and that a peer is home to: a
    /// launch that may not have arrived, a question, or a cancel. By the session of that peer, which reaches it.
    pub(crate) fn jobs_beyond_reach(&self, now: Millis) -> BTreeMap<String, BTreeSet<JobId>> {
        let mut beyond: BTreeMap<String, BTreeSet<JobId>> = BTreeMap::new();
        for executor in self.executors.values() {
            let for_long = executor.unreached_since.is_some_and(|since| since.saturating_add(CUT_OFF_AFTER_MS) <= now);
            if executor.link != Link::Peer || executor.pull || !for_long {
                continue;
            }
            let waits = |job: &&super::Job| {
                job.leaving.is_none()
                    // Where two peers are cut off from one executor each, a job that waits for both must not be passed to
                    // and fro without a rest.
                    && job.held_since.saturating_add(CUT_OFF_AFTER_MS) <= now
                    && (executor.ask.contains_key(&job.id)
                        || executor.has_on_its_way(job.id)
                        || (is_ending(job) && job.graph.holds(&executor.key.id).next().is_some()))
            };
            let jobs = self.jobs.values().filter(|job| job.graph.concerns(&executor.key.id)).filter(waits);
            beyond.entry(executor.home.clone()).or_default().extend(jobs.map(|job| job.id));
        }
        beyond.retain(|_, jobs| !jobs.is_empty());
        beyond
    }
}
