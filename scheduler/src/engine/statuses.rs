//! What executors report. A report is acknowledged ("settled") only when whatever it did to its job is committed, or
//! when it is clear that it will never do anything; until then the executor keeps it in its outbox.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::Event;
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};
use muster_proto::{convert, v1};
use tokio::sync::oneshot;

use super::job::Consequences;
use super::{Engine, job};
use crate::faults;

/// What became of a call's statuses.
#[derive(Debug, Default)]
pub struct StatusAnswer {
    /// Sequences that the executor may forget.
    pub settled: Vec<u64>,
    /// Statuses of jobs that are not owned here, by job.
    pub elsewhere: BTreeMap<JobId, Vec<v1::AttemptStatus>>,
}

/// A call that waits for commits of several jobs.
#[derive(Debug)]
pub(crate) struct Batch {
    /// How many of its statuses are not yet decided.
    open: usize,
    answer: StatusAnswer,
    reply: oneshot::Sender<StatusAnswer>,
}

impl Engine {
    pub(super) fn statuses(
        &mut self,
        by: &ExecutorKey,
        statuses: Vec<v1::AttemptStatus>,
        reply: oneshot::Sender<StatusAnswer>,
        now: Millis,
    ) {
        let number = self.next_batch;
        self.next_batch += 1;
        let mut answer = StatusAnswer::default();
        let mut open = 0;
        let mut behind = BTreeSet::new();
        let schedulers = self.schedulers_sharing();
        for status in statuses {
            let sequence = status.sequence;
            let Some((job, task, attempt)) =
                status.attempt.as_ref().and_then(|attempt| convert::attempt_ref(attempt).ok())
            else {
                tracing::warn!(executor = by.id, sequence, "a status without a readable attempt is dropped");
                answer.settled.push(sequence);
                continue;
            };
            let mut next_waits = false;
            if let Some(executor) = self.executors.get_mut(&by.id) {
                executor.arrived(&(job, task, attempt));
                match &status.what {
                    Some(v1::attempt_status::What::Started(_)) => executor.begun(&(job, task, attempt)),
                    Some(v1::attempt_status::What::Finished(end)) => {
                        let was_ours = executor.release(&(job, task, attempt));
                        next_waits = executor.has_work_ahead(schedulers);
                        if end.outcome() != v1::Outcome::GivenBack {
                            executor.gets_on();
                        }
                        // Told again until it is settled, it counts once.
                        if was_ours {
                            self.judge(by, (job, task, attempt), end, now);
                        }
                    }
                    Some(v1::attempt_status::What::Moved(_)) | None => {}
                }
            }
            // One that leaves is its next owner's to hear of it: whatever came in now would hold it back.
            if self.jobs.get(&job).is_none_or(|job| job.leaving.is_some()) {
                if sequence > 0 {
                    answer.elsewhere.entry(job).or_default().push(status);
                }
                continue;
            }
            // What is known here is not the job's newest state: whoever owns it now has yet to hear of this.
            if self.is_of_a_later_owner(job, task, attempt) {
                if sequence > 0 {
                    answer.elsewhere.entry(job).or_default().push(status);
                }
                behind.insert(job);
                continue;
            }
            match status.what {
                Some(v1::attempt_status::What::Started(started)) => {
                    let started_at = started.started_at_ms;
                    self.apply(job, Event::AttemptStarted { task, attempt, by: by.clone(), started_at }, now);
                }
                Some(v1::attempt_status::What::Finished(finished)) => match convert::attempt_end(finished) {
                    Ok(end) => {
                        if let Some(known) = self.jobs.get_mut(&job).filter(|_| end.started_at > 0) {
                            known.pace.observe(task.stage, end.finished_at.saturating_sub(end.started_at));
                        }
                        let event = Event::AttemptFinished { task, attempt, by: by.clone(), end };
                        self.apply_for(job, event, !next_waits, now);
                        if faults::is_set("break-acknowledge-after-commit") {
                            answer.settled.push(sequence);
                            continue;
                        }
                        let job = self.jobs.get_mut(&job).expect("seen above, and apply removes none");
                        job.waiting.settled.push((number, sequence));
                        open += 1;
                    }
                    Err(error) => {
                        // A newer executor's word that this version has no ear for: kept until a newer scheduler asks.
                        tracing::warn!(executor = by.id, %job, %error, "a status cannot be understood");
                    }
                },
                Some(v1::attempt_status::What::Moved(to)) => {
                    // What is not settled was not taken, and is asked about again.
                    if self.output_moved((job, task, attempt), &by.id, &to, now) {
                        let job = self.jobs.get_mut(&job).expect("seen above, and apply removes none");
                        job.waiting.settled.push((number, sequence));
                        open += 1;
                    }
                }
                None => answer.settled.push(sequence),
            }
        }
        if open == 0 {
            // The caller may have gone; the executor sends again what is not settled.
            let _ = reply.send(answer);
        } else {
            self.batches.insert(number, Batch { open, answer, reply });
        }
        for job in behind {
            self.read_again(job, "an executor has an attempt that was not given here", 0);
        }
    }

    /// Whether the attempt is newer than any that is known here. Numbers only rise, and none is launched before it is
    /// committed, so a later owner gave it: this copy was superseded and has not heard of it. Those that a restored store
    /// does not know are not meant; they have numbers of an earlier epoch.
    ///
    /// What a superseded owner knows is how the job once was. So it may acknowledge what had no effect by then, which
    /// never has any, but nothing about what came after.
    fn is_of_a_later_owner(&self, job: JobId, task: TaskId, attempt: Attempt) -> bool {
        let newest = self.jobs[&job].graph.task(task).map(|known| known.attempt);
        newest.is_some_and(|newest| attempt > newest) && attempt > super::first_attempt_of(self.identity.epoch)
    }

    /// These statuses are committed.
    pub(super) fn settle_statuses(&mut self, settled: Vec<(u64, u64)>) {
        self.counts.statuses_settled += settled.len() as u64;
        for (number, sequence) in settled {
            self.decide(number, Some(sequence));
        }
    }

    fn decide(&mut self, number: u64, settled: Option<u64>) {
        let Some(batch) = self.batches.get_mut(&number) else { return };
        batch.answer.settled.extend(settled);
        batch.open -= 1;
        if batch.open == 0 {
            let batch = self.batches.remove(&number).expect("it was there two lines above");
            let _ = batch.reply.send(batch.answer);
        }
    }

    /// What waited for a commit that will not be: statuses stay with their executors, users are told to ask again.
    pub(super) fn abandon(&mut self, consequences: Consequences) {
        for (number, _) in consequences.settled {
            self.decide(number, None);
        }
        // Dropping the senders tells the callers.
        drop(consequences.replies);
    }

    pub(super) fn answer_replies(&mut self, id: JobId, replies: Vec<job::Reply>) {
        let state = self.jobs.get(&id).map(|job| v1::JobState::from(job.graph.job().state));
        for reply in replies {
            match reply {
                job::Reply::Cancelled(reply) => drop(reply.send(state)),
                job::Reply::Retried(reply, tasks) => drop(reply.send(Some(tasks))),
            }
        }
    }
}
