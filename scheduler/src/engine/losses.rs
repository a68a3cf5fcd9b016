//! Executors that are out of reach, lost or stopped: when a job gives up what it had on them.
//!
//! An executor is *away* while no scheduler that we know of holds its session. Its home says so in the executor's record,
//! so that every scheduler begins to count, each by its own clock and from when it heard. What follows is each job's own
//! matter, and happens by a commit of the job: by default when the executor was declared lost, by compare-and-set on its
//! record; after the job's own time; or never, before the executor has stopped for good.
//!
//! **Invariant:** every job here has been told of every loss that concerns it. A job that is read, or retried, after the
//! loss is told then: nobody would ever answer for the attempts that it still believes to be there.
//!
//! **Invariant:** what was given up is not launched: its bookings are gone, and so is the way by which its launches were
//! going. When the executor is back it is asked, and ends what it runs in vain.

use std::collections::BTreeSet;

use muster_graph::execution::Event;
use muster_graph::ids::{ExecutorKey, JobId, Millis};
use muster_graph::plan::LossPolicy;
use muster_proto::v1;
use muster_state::Revision;

use super::takeover::Doubt;
use super::{Engine, Executor, Job, Link, Output};

/// An executor is not there any more, nor is anything that it had.
#[derive(Debug)]
pub struct Loss {
    /// Who, with all earlier incarnations. Incarnation 0: the store knows nothing of it.
    pub key: ExecutorKey,
    /// The revision of the record that says so; 0: there is no record.
    pub record: Revision,
    /// It stopped because it was told to.
    pub on_purpose: bool,
}

/// An executor whose session broke mostly opens another one at once; only then is its record to say that it has none.
pub(super) const TELL_AFTER_MS: Millis = 500;

fn all_lives_to(key: &ExecutorKey) -> ExecutorKey {
    let incarnation = if key.incarnation == 0 { u64::MAX } else { key.incarnation };
    ExecutorKey { id: key.id.clone(), incarnation }
}

fn policy(job: &Job) -> LossPolicy {
    job.graph.plan().lost_after
}

/// Whether a job gives up what it has on an executor that is gone: for good, or as far as the cluster knows. One that was
/// asked to end waits no longer than others do.
fn gives_up(job: &Job, is_final: bool) -> bool {
    is_final || policy(job) == LossPolicy::Cluster || is_ending(job)
}

pub(super) fn is_ending(job: &Job) -> bool {
    let record = job.graph.job();
    record.cancel.is_some() || record.timed_out
}

impl Executor {
    /// Whether it is gone for good: it has stopped, or an operator said so.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.is_final
    }

    /// Nothing has been heard of it: it is out of reach.
    pub(crate) fn fell_silent(&mut self, now: Millis) {
        tracing::info!(executor = self.key.id, incarnation = self.key.incarnation, "executor is out of reach");
        if self.link == Link::Home {
            self.tell_at = Some(now + TELL_AFTER_MS);
        }
        self.go_away(Link::None, now);
    }

    pub(super) fn go_away(&mut self, link: Link, now: Millis) {
        self.link = link;
        self.since = now;
        self.away_since.get_or_insert(now);
        self.poll = None;
        if link == Link::Gone {
            self.tell_at = None;
        }
    }

    pub(super) fn is_back(&mut self, link: Link, now: Millis) {
        self.link = link;
        self.since = now;
        self.away_since = None;
        self.is_final = false;
        self.tell_at = None;
    }
}

impl Engine {
    pub(super) fn lost(&mut self, loss: Loss, now: Millis) {
        let Loss { key, record, on_purpose } = loss;
        let executor = self
            .executors
            .entry(key.id.clone())
            .or_insert_with(|| Executor::unheard_of(ExecutorKey { incarnation: 0, ..key.clone() }, now));
        if executor.key.incarnation > key.incarnation || (record > 0 && record <= executor.record) {
            return;
        }
        if on_purpose {
            tracing::info!(executor = key.id, incarnation = key.incarnation, "executor has stopped");
        } else {
            tracing::warn!(executor = key.id, incarnation = key.incarnation, "executor is lost");
            self.counts.executors_lost += 1;
        }
        executor.key = key.clone();
        executor.record = record;
        executor.go_away(Link::Gone, now);
        // Without a record there is nothing that could come back.
        executor.is_final = on_purpose || record == 0;
        executor.asking = None;
        executor.to_fetch = v1::PollWorkResponse::default();
        self.sever(&key.id);
        self.went_down(&key, on_purpose, now);
        self.tell_jobs_of(&key.id, now);
        let (Some(executor), jobs) = (self.executors.get_mut(&key.id), &self.jobs) else { return };
        let is_final = executor.is_final;
        executor.release_where(|(id, ..)| jobs.get(id).is_none_or(|job| gives_up(job, is_final)));
    }

    /// Nothing that is on its way to the executor may arrive any more.
    pub(super) fn sever(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        executor.unanswered = 0;
        executor.is_severed = true;
        if executor.linked.take().is_some() {
            self.outputs.push(Output::Disconnect { executor: executor.key.clone() });
        }
    }

    /// An executor went away, or is gone: jobs give up what they had there, or begin to wait.
    pub(super) fn tell_jobs_of(&mut self, id: &str, now: Millis) {
        self.fell_silent(id, now);
        let concerned: Vec<JobId> = self.jobs.values().filter(|job| job.graph.concerns(id)).map(|job| job.id).collect();
        for job in concerned {
            self.tell_of_loss(job, id, now);
        }
    }

    /// A job that was just asked to end does not wait any more for executors that the cluster has given up.
    pub(super) fn stop_waiting(&mut self, id: JobId, now: Millis) {
        if self.jobs.get(&id).is_some_and(is_ending) {
            self.tell_of_losses(id, now);
        }
    }

    /// A job that was just read, or is retried, may lean on executors whose loss it has not been told of.
    pub(super) fn tell_of_losses(&mut self, id: JobId, now: Millis) {
        let Some(job) = self.jobs.get(&id) else { return };
        let away = self.executors.values_mut().filter(|executor| executor.away_since.is_some());
        let mut concerned = Vec::new();
        for executor in away {
            if job.graph.concerns(&executor.key.id) {
                concerned.push(executor.key.id.clone());
            } else if job.graph.knows(&executor.key.id) {
                // Given up by an owner before us: if it comes back, it has to be told.
                executor.ask.insert(id, Doubt::new(BTreeSet::new()));
            }
        }
        for executor in concerned {
            self.tell_of_loss(id, &executor, now);
        }
    }

    fn tell_of_loss(&mut self, id: JobId, executor: &str, now: Millis) {
        let (Some(job), Some(known)) = (self.jobs.get(&id), self.executors.get(executor)) else { return };
        if known.link == Link::Gone && gives_up(job, known.is_final) {
            self.give_up(id, executor, now);
        } else if let (LossPolicy::Time(limit), Some(since)) = (policy(job), known.away_since) {
            self.absences.insert((since.saturating_add(limit), executor.to_owned(), id));
        }
    }

    /// Jobs whose own time for an executor is up give up what they had there.
    pub(super) fn end_absences(&mut self, now: Millis) {
        while self.absences.first().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, executor, id)) = self.absences.pop_first() else { return };
            let (Some(job), Some(known)) = (self.jobs.get(&id), self.executors.get(&executor)) else { continue };
            let (LossPolicy::Time(limit), Some(since)) = (policy(job), known.away_since) else { continue };
            let due = since.saturating_add(limit);
            if due > now {
                // It was back in between.
                self.absences.insert((due, executor, id));
            } else if job.graph.concerns(&executor) {
                tracing::warn!(job = %id, executor, limit_ms = limit, "executor away for too long; its tasks run elsewhere");
                self.sever(&executor);
                self.give_up(id, &executor, now);
            }
        }
    }

    /// What a job had on an executor is gone for it, whatever becomes of the executor.
    fn give_up(&mut self, id: JobId, executor: &str, now: Millis) {
        let Some(known) = self.executors.get_mut(executor) else { return };
        known.release_where(|(job, ..)| *job == id);
        let name = id.to_string();
        known.to_fetch.launches.retain(|group| group.job_id != name);
        let (life, is_final) = (known.key.clone(), known.is_final);
        self.hold_back(id, now);
        if !is_final {
            self.blame(id, &life, &BTreeSet::new(), now);
        }
        let Some(known) = self.executors.get_mut(executor) else { return };
        // If it comes back it is asked, so that it ends what nobody wants any more.
        known.ask.insert(id, Doubt::new(BTreeSet::new()));
        let event = Event::ExecutorLost { executor: all_lives_to(&known.key) };
        self.apply(id, event, now);
    }
}
