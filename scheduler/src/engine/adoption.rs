//! Jobs that come into memory, and go from it, some of them to be read again.

use muster_graph::execution::Event;
use muster_graph::ids::{JobId, Millis};
use muster_state::Revision;

use super::{Engine, Identity, Job, Link, Loaded, Output, first_attempt_of};
use crate::fairness::Use;

impl Engine {
    pub(super) fn adopted(&mut self, mut loaded: Loaded, now: Millis) {
        let id = loaded.id;
        if loaded.session != self.identity.session {
            // While it was read the session was lost, and a new one opened.
            return self.dropped(id, "it was read for a session that is lost");
        }
        let (retry, cancel_mark) = (loaded.retry.take(), loaded.cancel_mark.take());
        if let Some(known) = self.jobs.get(&id) {
            // Read twice under one token (by the scan, while it was being planned, for instance): the copy in memory
            // is the newer one, for nobody else writes. Under a newer token it was over, or ours no more, meanwhile.
            if known.token() >= loaded.cursor.token {
                tracing::debug!(job = %id, "the job is held already");
                return self.answer_retry(id, retry);
            }
            self.forget_job(id, "it was claimed anew");
        }
        let fresh = loaded.fresh;
        let namespace = self.queues.name(&loaded.head.namespace);
        let mut job = Job::new(loaded, namespace, now);
        job.graph.number_attempts_above(first_attempt_of(self.identity.epoch));
        self.tasks += u64::from(job.graph.counts().total());
        self.jobs.insert(id, job);
        if fresh {
            self.begin_in_time(id, now);
        } else if let Some(job) = self.jobs.get_mut(&id) {
            job.graph.go_on_by_another_clock(now);
        }
        if let Some((reason, mark)) = cancel_mark {
            self.carry_cancel(id, reason, mark, now);
        }
        if fresh {
            return self.strike(id, now);
        }
        if self.jobs[&id].head.retry_requested {
            self.apply(id, Event::RetryRequested, now);
            let job = self.jobs.get_mut(&id).expect("inserted above, and apply removes none");
            job.retried = job.tasks_to_retry();
        }
        self.answer_retry(id, retry);
        self.ask_about(id, now);
        self.tell_of_losses(id, now);
        self.commit_at_once(id);
        self.refresh(id);
        self.strike(id, now);
    }

    /// It could not be read. A copy that came into memory since then is not concerned.
    pub(super) fn dropped(&mut self, id: JobId, why: &str) {
        if !self.jobs.contains_key(&id) {
            tracing::info!(job = %id, why, "job let go");
            // Those who watch it look for its new owner.
            self.watchers.remove(&id);
        }
    }

    /// As of this revision of the store these jobs name somebody else. Under an older token they are stale copies, which nobody
    /// would notice as long as they have nothing to commit.
    pub(super) fn not_ours(&mut self, jobs: Vec<JobId>, as_of: Revision) {
        for id in jobs {
            // What is in flight tells by its result.
            let is_stale = |job: &Job| job.token() < as_of && job.in_flight.is_none();
            if self.jobs.get(&id).is_some_and(is_stale) {
                self.drop_job(id, "another scheduler owns it");
            }
        }
    }

    /// What is in memory is in doubt: it is dropped, and read again.
    pub(super) fn read_again(&mut self, id: JobId, why: &str, after_ms: Millis) {
        self.forget_job(id, why);
        self.outputs.push(Output::Reload { job: id, after_ms });
    }

    pub(super) fn drop_all_jobs(&mut self, why: &str) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job in jobs {
            self.drop_job(job, why);
        }
    }

    /// The job is not ours any more.
    pub(super) fn drop_job(&mut self, id: JobId, why: &str) {
        self.forget_job(id, why);
        self.watchers.remove(&id);
    }

    pub(super) fn forget_job(&mut self, id: JobId, why: &str) {
        let Some(job) = self.jobs.remove(&id) else { return };
        tracing::info!(job = %id, why, "job dropped from memory");
        self.tasks -= u64::from(job.graph.counts().total());
        self.queues.leave(&job.namespace, job.place());
        self.queues.changed(&job.namespace, &job.standing, &Use::default());
        if let Some(at) = job.timer {
            self.timers.remove(&(at, id));
        }
        self.dirty.remove(&id);
        self.ends.forget(id);
        self.suspects.forget(id);
        for executor in self.executors.values_mut() {
            executor.ask.remove(&id);
            executor.release_where(|(held, ..)| *held == id);
            let name = id.to_string();
            executor.to_fetch.launches.retain(|group| group.job_id != name);
        }
        self.abandon(job.waiting);
        if let Some((_, consequences)) = job.in_flight {
            self.abandon(consequences);
        }
    }

    /// Goes on under a new session, to which no job belongs yet. In a new epoch, without executors either: revisions of before mean
    /// nothing in it, so what is known of them has to be told anew.
    pub fn take_identity(&mut self, identity: Identity, now: Millis) {
        self.drop_all_jobs("this scheduler has a new session");
        // The store may have been restored to before them.
        self.group_cancels.clear();
        if identity.epoch != self.identity.epoch {
            for executor in std::mem::take(&mut self.executors).into_values() {
                if executor.linked.is_some() {
                    self.outputs.push(Output::Disconnect { executor: executor.key });
                }
            }
        }
        // Whoever lost its session may have been cut off from the store: what it did not see was nobody's absence.
        for executor in self.executors.values_mut().filter(|executor| executor.link == Link::None) {
            executor.away_since = None;
            executor.go_away(Link::None, now);
        }
        self.identity = identity;
    }
}
