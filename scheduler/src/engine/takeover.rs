//! Asking executors about jobs that were taken over. The question is a fence: an executor stores our token before it
//! answers, so that what it does not have will never come. Silence is never evidence.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::{AnswerScope, Event};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};
use muster_proto::v1;

use super::{Engine, Executor, Output};

/// Before a job is read again of which an executor knows a newer owner: that one may just be taking it over.
pub(super) const STALE_PAUSE_MS: Millis = 500;
/// Jobs in one question: the answer lists all that the executor has of them.
const ASK_JOBS_MAX: usize = 256;

impl Engine {
    /// A job that was taken over has attempts out there: asks their executors, and takes what they hold into account.
    pub(super) fn ask_about(&mut self, id: JobId, now: Millis) {
        let job = &self.jobs[&id];
        let stages = &job.graph.plan().stages;
        for name in job.graph.holders() {
            let executor = self
                .executors
                .entry(name.to_owned())
                .or_insert_with(|| Executor::unheard_of(ExecutorKey { id: name.to_owned(), incarnation: 0 }, now));
            for (task, attempt) in job.graph.holds(name) {
                executor.hold((id, task, attempt), &stages[task.stage.0 as usize].resources);
            }
            executor.ask.insert(id, job.graph.holds(name).collect());
        }
        self.ask_executors();
    }

    /// Sends the questions that are owed to executors whose address is known.
    pub(super) fn ask_executors(&mut self) {
        for executor in self.executors.values_mut() {
            if executor.ask.is_empty() || executor.asking || !executor.is_reachable() {
                continue;
            }
            executor.asking = true;
            let jobs = executor
                .ask
                .keys()
                .filter_map(|id| self.jobs.get(id))
                .take(ASK_JOBS_MAX)
                .map(|job| v1::JobFence {
                    job_id: job.id.to_string(),
                    fence: Some(v1::Fence { epoch: self.identity.epoch, token: job.token() }),
                    owner_address: self.identity.address.clone(),
                })
                .collect();
            self.outputs.push(Output::Ask { executor: executor.key.clone(), address: executor.address.clone(), jobs });
        }
    }

    pub(super) fn answered(
        &mut self,
        key: &ExecutorKey,
        jobs: &[JobId],
        held: &[(JobId, TaskId, Attempt)],
        refused: &[JobId],
        now: Millis,
    ) {
        for job in refused {
            self.read_again(*job, "an executor has heard of a newer owner", STALE_PAUSE_MS);
        }
        let mut in_doubt = BTreeMap::new();
        if let Some(executor) = self.executors.get_mut(&key.id) {
            executor.asking = false;
            in_doubt.extend(jobs.iter().filter_map(|job| Some((*job, executor.ask.remove(job)?))));
        }
        for (job, asked) in &in_doubt {
            if refused.contains(job) || !self.jobs.contains_key(job) {
                continue;
            }
            let mut held: BTreeSet<(TaskId, Attempt)> =
                held.iter().filter(|(id, ..)| id == job).map(|&(_, task, attempt)| (task, attempt)).collect();
            // What it was given since then it cannot have denied.
            held.extend(self.jobs[job].graph.holds(&key.id).filter(|attempt| !asked.contains(attempt)));
            if let Some(executor) = self.executors.get_mut(&key.id) {
                executor.release_where(|(id, task, attempt)| id == job && !held.contains(&(*task, *attempt)));
            }
            let event = Event::ExecutorAnswered { by: key.clone(), held, scope: AnswerScope::Everything };
            self.apply(*job, event, now);
        }
        self.ask_executors();
    }
}
