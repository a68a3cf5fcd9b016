//! Asking executors about jobs that were taken over. The question is a fence: an executor stores our token before it
//! answers, so that what it does not have will never come. Silence is never evidence.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::{AnswerScope, Event, TaskPhase};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};
use muster_proto::v1;

use super::{Engine, Executor, Identity, Job, Output};

/// Before a job is read again of which an executor knows a newer owner: that one may just be taking it over.
pub(super) const STALE_PAUSE_MS: Millis = 500;
/// Jobs in one question: the answer lists all that the executor has of them.
pub(super) const ASK_JOBS_MAX: usize = 256;

/// What an executor must be asked about a job.
#[derive(Debug)]
pub(crate) struct Doubt {
    /// The attempts in doubt when that became clear. What it is given later is no part of the question: the answer may
    /// have been on its way before the launch.
    pub(super) attempts: BTreeSet<(TaskId, Attempt)>,
    /// The question that asks about it. Only its answer counts: one to an earlier question was given under an earlier
    /// token, and what was launched under that could still come.
    question: Option<u64>,
    /// The poll whose answer asks about it: an executor that heeded it says so with its next table.
    pub(super) poll: Option<u64>,
}

impl Doubt {
    pub(crate) fn new(attempts: BTreeSet<(TaskId, Attempt)>) -> Self {
        Self { attempts, question: None, poll: None }
    }
}

/// The question about a job. Who is asked knows its owner from then on.
pub(super) fn job_fence(identity: &Identity, job: &Job) -> v1::JobFence {
    v1::JobFence {
        job_id: job.id.to_string(),
        fence: Some(v1::Fence { epoch: identity.epoch, token: job.token() }),
        owner_address: identity.address.clone(),
    }
}

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
                let runs = job.graph.task(task).is_some_and(|task| task.state.phase() == TaskPhase::Running);
                executor.hold((id, task, attempt), &stages[task.stage.0 as usize].resources, runs, now);
            }
            executor.ask.insert(id, Doubt::new(job.graph.holds(name).collect()));
        }
        self.ask_executors();
    }

    /// An executor has begun a new life elsewhere: only it can say what survived.
    pub(super) fn ask_everything_of(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        for job in self.jobs.values().filter(|job| job.graph.concerns(id)) {
            executor.ask.insert(job.id, Doubt::new(job.graph.holds(id).collect()));
        }
    }

    /// Sends the questions that are owed to executors whose address is known.
    pub(super) fn ask_executors(&mut self) {
        for executor in self.executors.values_mut() {
            if executor.asking.is_some() || !executor.is_reachable() {
                continue;
            }
            let question = self.next_question;
            let mut jobs = Vec::new();
            for (id, doubt) in executor.ask.iter_mut().take(ASK_JOBS_MAX) {
                let Some(job) = self.jobs.get(id) else { continue };
                doubt.question = Some(question);
                jobs.push(job_fence(&self.identity, job));
            }
            if jobs.is_empty() {
                continue;
            }
            self.next_question += 1;
            executor.asking = Some(question);
            let (address, executor) = (executor.address.clone(), executor.key.clone());
            self.outputs.push(Output::Ask { executor, address, question, jobs });
        }
    }

    pub(super) fn answered(
        &mut self,
        key: &ExecutorKey,
        question: u64,
        held: &[(JobId, TaskId, Attempt)],
        refused: &[JobId],
        now: Millis,
    ) {
        let mut in_doubt = BTreeMap::new();
        if let Some(executor) = self.executors.get_mut(&key.id) {
            executor.asking.take_if(|asking| *asking == question);
            in_doubt = executor.ask.extract_if(.., |_, doubt| doubt.question == Some(question)).collect();
        }
        for job in refused {
            if in_doubt.remove(job).is_some() {
                self.read_again(*job, "an executor has heard of a newer owner", STALE_PAUSE_MS);
            }
        }
        self.settle_doubts(key, in_doubt, held, now);
        self.ask_executors();
    }

    /// The executor has told all that it holds: of what was in doubt, nothing else will come.
    pub(super) fn settle_doubts(
        &mut self,
        key: &ExecutorKey,
        in_doubt: BTreeMap<JobId, Doubt>,
        held: &[(JobId, TaskId, Attempt)],
        now: Millis,
    ) {
        for (job, doubt) in &in_doubt {
            if !self.jobs.contains_key(job) {
                continue;
            }
            let mut held: BTreeSet<(TaskId, Attempt)> =
                held.iter().filter(|(id, ..)| id == job).map(|&(_, task, attempt)| (task, attempt)).collect();
            // What this life of it was given since then it cannot have denied.
            let ended = ExecutorKey { incarnation: key.incarnation.saturating_sub(1), ..key.clone() };
            let graph = &self.jobs[job].graph;
            let of_earlier_lives = graph.held_up_to(&ended);
            let since = |attempt: &_| !doubt.attempts.contains(attempt) && !of_earlier_lives.contains(attempt);
            held.extend(graph.holds(&key.id).filter(since));
            if let Some(executor) = self.executors.get_mut(&key.id) {
                executor.release_where(|(id, task, attempt)| id == job && !held.contains(&(*task, *attempt)));
            }
            self.blame(*job, &ended, &held, now);
            let event = Event::ExecutorAnswered { by: key.clone(), held, scope: AnswerScope::Everything };
            self.apply(*job, event, now);
        }
    }

    /// Whether an executor is still to answer a question. If everything that it asked is settled otherwise, the next
    /// question may be asked.
    pub(crate) fn wants_answer(&mut self, key: &ExecutorKey, question: u64) -> bool {
        let Some(executor) = self.executors.get_mut(&key.id) else { return false };
        if executor.key != *key || executor.asking != Some(question) {
            return false;
        }
        if executor.ask.values().any(|doubt| doubt.question == Some(question)) {
            return true;
        }
        executor.asking = None;
        self.ask_executors();
        false
    }
}
