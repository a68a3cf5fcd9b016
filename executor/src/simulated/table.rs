//! What one simulated executor has: attempts that wait, run, or have ended and are not settled yet, and the highest owner of
//! each job. No I/O and no clock.
//!
//! All tasks take equally long, so those that began first end first, and a queue is all the timer there is.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::time::Instant;

use crate::keys::{AttemptKey, Fence};

/// A task of a job: its stage and its index.
type Task = (u32, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Running,
    Finished,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    attempt: u32,
    phase: Phase,
    started_at_ms: u64,
}

#[derive(Debug, Default)]
struct Job {
    fence: Fence,
    owner: String,
    attempts: HashMap<Task, Held>,
}

/// What became of one message of launches.
#[derive(Debug, Default)]
pub(super) struct Admitted {
    pub(super) accepted: usize,
    pub(super) refused: Vec<v1::Refusal>,
}

/// Something to tell the owner of a job.
#[derive(Debug, Clone)]
pub(super) struct Due {
    pub(super) job: JobId,
    pub(super) status: v1::AttemptStatus,
    /// It was sent in vain before: the home scheduler passes it on.
    pub(super) by_home: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    slots: usize,
    task: Duration,
    jobs: HashMap<JobId, Job>,
    waiting: VecDeque<AttemptKey>,
    /// In the order in which they end.
    running: VecDeque<(Instant, AttemptKey)>,
    busy: usize,
    /// Results that are not settled, by their numbers.
    unsettled: HashMap<u64, AttemptKey>,
    sequence: u64,
    /// To be sent.
    pub(super) due: VecDeque<Due>,
}

impl Table {
    pub(super) fn new(slots: usize, task: Duration) -> Self {
        Self {
            slots,
            task,
            jobs: HashMap::new(),
            waiting: VecDeque::new(),
            running: VecDeque::new(),
            busy: 0,
            unsettled: HashMap::new(),
            sequence: 0,
            due: VecDeque::new(),
        }
    }

    /// Attempts that run.
    pub(super) fn busy(&self) -> usize {
        self.busy
    }

    /// Where news of a job go.
    pub(super) fn owner(&self, job: JobId) -> Option<&str> {
        self.jobs.get(&job).map(|job| job.owner.as_str()).filter(|owner| !owner.is_empty())
    }

    pub(super) fn owner_is(&mut self, job: JobId, owner: String) {
        if let Some(job) = self.jobs.get_mut(&job) {
            job.owner = owner;
        }
    }

    /// Takes attempts in, each once.
    pub(super) fn launch(&mut self, groups: Vec<v1::LaunchGroup>) -> Admitted {
        let mut admitted = Admitted::default();
        for group in groups {
            let Ok(id) = group.job_id.parse::<JobId>() else { continue };
            let fence = Fence::from_wire(group.fence.as_ref());
            let job = self.jobs.entry(id).or_default();
            let is_stale = fence < job.fence;
            if !is_stale {
                job.fence = fence;
                job.owner = group.owner_address;
            }
            for launch in group.attempts {
                let key = AttemptKey { job: id, stage: group.stage, index: launch.index, attempt: launch.attempt };
                let present = job.attempts.get(&(key.stage, key.index)).map(|held| held.attempt);
                if is_stale || present.is_some_and(|attempt| attempt > key.attempt) {
                    let reason = if is_stale { v1::RefusalReason::StaleFence } else { v1::RefusalReason::StaleAttempt };
                    let message = "something newer is known here".to_owned();
                    let attempt = Some(key.to_wire());
                    admitted.refused.push(v1::Refusal { attempt, reason: reason.into(), message });
                } else if present != Some(key.attempt) {
                    // One that it replaces is found to be another when its turn comes.
                    let held = Held { attempt: key.attempt, phase: Phase::Waiting, started_at_ms: 0 };
                    if job.attempts.insert((key.stage, key.index), held).is_some_and(|old| old.phase == Phase::Running)
                    {
                        self.busy -= 1;
                    }
                    self.waiting.push_back(key);
                    admitted.accepted += 1;
                }
            }
        }
        admitted
    }

    /// Starts what waits for a slot and ends what has run long enough. Answers how many came to their end.
    pub(super) fn advance(&mut self, now: Instant, wall_ms: u64) -> usize {
        let mut ended = 0;
        loop {
            while self.running.front().is_some_and(|(ends, _)| *ends <= now) {
                let (_, key) = self.running.pop_front().expect("it was looked at just now");
                if self.is(key, Phase::Running) {
                    ended += 1;
                    self.finish(key, v1::Outcome::Succeeded, wall_ms);
                }
            }
            if self.busy >= self.slots {
                return ended;
            }
            let Some(key) = self.waiting.pop_front() else { return ended };
            if self.is(key, Phase::Waiting) {
                self.begin(key, now, wall_ms);
            }
        }
    }

    fn begin(&mut self, key: AttemptKey, now: Instant, wall_ms: u64) {
        self.busy += 1;
        let lasts = !self.task.is_zero();
        let held = self.held(key).expect("the caller has looked");
        held.phase = Phase::Running;
        // Where nothing takes time, nothing is said to have been started.
        if lasts {
            held.started_at_ms = wall_ms;
            let started = v1::AttemptStarted { started_at_ms: wall_ms };
            self.tell(key, 0, v1::attempt_status::What::Started(started));
        }
        self.running.push_back((now + self.task, key));
    }

    fn finish(&mut self, key: AttemptKey, outcome: v1::Outcome, wall_ms: u64) {
        let Some(held) = self.held(key) else { return };
        let was = std::mem::replace(&mut held.phase, Phase::Finished);
        let started_at_ms = held.started_at_ms;
        if was == Phase::Running {
            self.busy -= 1;
        }
        self.sequence += 1;
        self.unsettled.insert(self.sequence, key);
        let finished = v1::AttemptFinished {
            outcome: outcome.into(),
            started_at_ms,
            finished_at_ms: wall_ms,
            ..v1::AttemptFinished::default()
        };
        self.tell(key, self.sequence, v1::attempt_status::What::Finished(finished));
    }

    fn tell(&mut self, key: AttemptKey, sequence: u64, what: v1::attempt_status::What) {
        let status = v1::AttemptStatus { sequence, attempt: Some(key.to_wire()), what: Some(what) };
        self.due.push_back(Due { job: key.job, status, by_home: false });
    }

    fn held(&mut self, key: AttemptKey) -> Option<&mut Held> {
        let held = self.jobs.get_mut(&key.job)?.attempts.get_mut(&(key.stage, key.index))?;
        (held.attempt == key.attempt).then_some(held)
    }

    fn is(&mut self, key: AttemptKey, phase: Phase) -> bool {
        self.held(key).is_some_and(|held| held.phase == phase)
    }

    /// Ends attempts that have not ended yet. Answers how many.
    pub(super) fn cancel(&mut self, request: &v1::CancelTasksRequest, wall_ms: u64) -> usize {
        let job = request.job_id.parse().ok();
        let keys = request.attempts.iter().filter_map(|attempt| AttemptKey::from_wire(attempt, job).ok());
        let mut cancelled = 0;
        for key in keys {
            if self.is(key, Phase::Waiting) || self.is(key, Phase::Running) {
                self.finish(key, v1::Outcome::Cancelled, wall_ms);
                cancelled += 1;
            }
        }
        cancelled
    }

    /// What it has of jobs whose new owners ask. From then on older owners are refused.
    pub(super) fn ask(&mut self, request: v1::AskJobsRequest) -> (Vec<v1::HeldAttempt>, Vec<String>) {
        let (mut held, mut refused) = (Vec::new(), Vec::new());
        for asked in request.jobs {
            let Ok(id) = asked.job_id.parse::<JobId>() else { continue };
            let job = self.jobs.entry(id).or_default();
            let fence = Fence::from_wire(asked.fence.as_ref());
            if fence < job.fence {
                refused.push(asked.job_id);
                continue;
            }
            job.fence = fence;
            job.owner = asked.owner_address;
            held.extend(of(id, job));
        }
        (held, refused)
    }

    /// All that no scheduler has settled.
    pub(super) fn all_held(&self) -> Vec<v1::HeldAttempt> {
        self.jobs.iter().flat_map(|(id, job)| of(*id, job)).collect()
    }

    /// Results that need not be told again.
    pub(super) fn settle(&mut self, sequences: &[u64]) -> usize {
        let mut settled = 0;
        for sequence in sequences {
            let Some(key) = self.unsettled.remove(sequence) else { continue };
            settled += 1;
            if self.is(key, Phase::Finished)
                && let Some(job) = self.jobs.get_mut(&key.job)
            {
                job.attempts.remove(&(key.stage, key.index));
            }
        }
        settled
    }

    /// Whether a result still has to be told. News of a start are told once.
    pub(super) fn is_unsettled(&self, sequence: u64) -> bool {
        self.unsettled.contains_key(&sequence)
    }

    /// Jobs that are over.
    pub(super) fn forget(&mut self, jobs: &[String]) {
        for id in jobs.iter().filter_map(|id| id.parse::<JobId>().ok()) {
            // With something unsettled it stays until that is told.
            if self.jobs.get(&id).is_some_and(|job| job.attempts.is_empty()) {
                self.jobs.remove(&id);
            }
        }
    }

    /// When the next one ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.running.front().map(|(ends, _)| *ends)
    }

    /// The highest fence heard of.
    pub(super) fn highest(&self) -> Fence {
        self.jobs.values().map(|job| job.fence).max().unwrap_or_default()
    }
}

fn of(id: JobId, job: &Job) -> impl Iterator<Item = v1::HeldAttempt> {
    job.attempts.iter().map(move |(&(stage, index), held)| {
        let state = match held.phase {
            Phase::Waiting => v1::HeldState::Waiting,
            Phase::Running => v1::HeldState::Running,
            Phase::Finished => v1::HeldState::Finished,
        };
        let key = AttemptKey { job: id, stage, index, attempt: held.attempt };
        v1::HeldAttempt { attempt: Some(key.to_wire()), state: state.into() }
    })
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
