//! What people ask for, and time: cancel, retry, the job's time-out, the ends of backoffs.

use std::cmp::Reverse;

use super::attempts::longest_backoff_ms;
use super::graph::Step;
use super::packed::TaskPhase;
use super::{
    Effect, ExecutionGraph, FailureClass, JobEvent, JobState, StageReason, StageRecord, StageState, TaskState, Why,
};
use crate::ids::{Millis, TaskId};
use crate::spec::When;

/// So many final failures are kept with the job's record, which is written whole whenever it changes; the rest are in the
/// job's log.
pub const FAILURES_MAX: usize = 16;

impl ExecutionGraph {
    pub(super) fn cancel_requested(&mut self, reason: String, step: &mut Step<'_>) {
        let why = match (&self.record.cancel, self.record.timed_out) {
            _ if self.is_over() => Why::Over,
            (Some(_), _) => Why::Duplicate,
            (None, true) => Why::Over,
            (None, false) => {
                step.emit(JobEvent::CancelRequested { reason: reason.clone() });
                self.record.cancel = Some(reason);
                return self.wind_down(step);
            }
        };
        step.ignore(why);
    }

    /// Another owner goes on with the job, by another clock: no backoff lasts longer than one that begins `now`, however far
    /// ahead of this clock the one was by which it was set.
    pub fn go_on_by_another_clock(&mut self, now: Millis) {
        let later = self.backoffs.iter().filter(|Reverse((at, _))| *at > now).map(|Reverse((_, task))| *task);
        for task in later.collect::<Vec<_>>() {
            let Some(packed) = self.packed(task).filter(|packed| packed.phase() == TaskPhase::Pending) else {
                continue;
            };
            let retries = &self.stage_plan(task.stage.0).retries;
            let spent = FailureClass::ALL.into_iter().zip(packed.spent).filter(|(_, spent)| *spent > 0);
            let longest = spent.map(|(class, spent)| longest_backoff_ms(retries, class, spent)).max().unwrap_or(0);
            let not_before = now.saturating_add(longest);
            if not_before < packed.time() {
                self.set_task_state(task.stage.0, task.index.0, TaskState::Pending { not_before });
            }
        }
    }

    /// When the job's time is up; none once it is ending anyway.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let runs = self.record.started_at > 0 && !self.is_over() && !self.is_ending();
        runs.then(|| self.plan.timeout_ms.map(|timeout| self.record.started_at.saturating_add(timeout))).flatten()
    }

    /// A timer that comes early, late or twice is nothing odd, and backoffs have ended before this is asked.
    pub(super) fn timer_fired(&mut self, step: &mut Step<'_>) {
        if self.is_over() {
            step.ignore(Why::Over);
        } else if self.deadline().is_some_and(|deadline| deadline <= self.clock) {
            step.emit(JobEvent::JobTimedOut);
            self.record.timed_out = true;
            self.wind_down(step);
        }
    }

    /// Cancels what was not begun and asks for the end of what was, except in `always` stages and nested jobs.
    fn wind_down(&mut self, step: &mut Step<'_>) {
        if !self.submitted {
            self.begin();
        }
        self.changes.job = true;
        self.set_job_state(JobState::Running, step);
        for stage in 0..self.stages.len() as u32 {
            let value = &self.stages[stage as usize];
            if value.outlives_cancel || value.record.state.is_over() {
                continue;
            }
            self.cancel_pending(stage);
            self.cancel_held(stage, step);
            self.look_at(stage);
        }
    }

    fn cancel_held(&mut self, stage: u32, step: &mut Step<'_>) {
        let value = &self.stages[stage as usize];
        if value.counts.held() == 0 {
            return;
        }
        for (index, task) in (0u32..).zip(&value.tasks).filter(|(_, task)| task.is_live()) {
            if let Some(on) = task.on() {
                let task_id = TaskId::new(stage, index);
                step.effects.push(Effect::CancelAttempt { task: task_id, attempt: task.attempt, on });
            }
        }
    }

    pub(super) fn retry_requested(&mut self, step: &mut Step<'_>) {
        if !matches!(self.record.state, JobState::Failed | JobState::Cancelled) {
            return step.ignore(Why::Over);
        }
        let resets = self.resets();
        let mut tasks = 0;
        for (stage, reset) in (0u32..).zip(&resets) {
            tasks += match reset {
                Reset::None => 0,
                Reset::Rest => self.reset_tasks(stage, false),
                Reset::Whole => self.reset_tasks(stage, true),
            };
        }
        step.emit(JobEvent::RetryRequested { tasks });
        self.record.cancel = None;
        self.record.timed_out = false;
        (self.record.started_at, self.record.finished_at) = (0, 0);
        self.record.failures.clear();
        self.changes.job = true;
        self.set_job_state(JobState::Queued, step);
        for (stage, reset) in (0u32..).zip(&resets) {
            if *reset != Reset::None {
                let record = StageRecord {
                    state: StageState::Unresolved,
                    reason: StageReason::None,
                    started_at: 0,
                    finished_at: 0,
                    ..self.stages[stage as usize].record
                };
                self.set_stage(stage, record, step);
                self.look_at(stage);
            }
        }
        // Inputs may have been lost while nothing needed them.
        self.need_revived = true;
    }

    /// What a retry does to each stage. Seeds are stages that failed or were cancelled; skipped ones follow from those
    /// above them. Below a seed, a stage that does not need its upstreams' success may have seen what will not be so again,
    /// and runs again as a whole, like one that was successful.
    fn resets(&self) -> Vec<Reset> {
        let mut resets = vec![Reset::None; self.stages.len()];
        let mut list: Vec<u32> = Vec::new();
        for (stage, value) in (0u32..).zip(&self.stages) {
            if matches!(value.record.state, StageState::Failed | StageState::Cancelled) {
                resets[stage as usize] = Reset::Rest;
                list.push(stage);
            }
        }
        let mut below = vec![false; self.stages.len()];
        while let Some(stage) = list.pop() {
            for &(lower, _) in self.topology.below(stage) {
                if !std::mem::replace(&mut below[lower as usize], true) {
                    let successful = self.stages[lower as usize].record.state == StageState::Successful;
                    let whole = successful || self.stage_plan(lower).when != When::OnSuccess;
                    resets[lower as usize] = if whole { Reset::Whole } else { Reset::Rest };
                    list.push(lower);
                }
            }
        }
        resets
    }

    /// Takes a stage's tasks back to pending, successful ones only if `whole`; says how many.
    fn reset_tasks(&mut self, stage: u32, whole: bool) -> u32 {
        let mut tasks = 0;
        for index in 0..self.stages[stage as usize].tasks.len() as u32 {
            let packed = self.stages[stage as usize].tasks[index as usize];
            let pending = TaskState::Pending { not_before: 0 };
            let mut fresh = match packed.phase() {
                TaskPhase::Failed | TaskPhase::Cancelled => packed.with(pending),
                TaskPhase::Successful if whole => packed.without_result(pending),
                _ => continue,
            };
            fresh.spent = [0; 6];
            self.set_task(stage, index, fresh);
            tasks += 1;
        }
        tasks
    }

    /// Makes tasks ready whose backoff is over.
    pub(super) fn release_due(&mut self) {
        while let Some(Reverse((at, task))) = self.backoffs.peek().copied()
            && at <= self.clock
        {
            self.backoffs.pop();
            if self.is_backing_off(at, task) {
                self.refresh_ready(task.stage.0, task.index.0);
            }
        }
    }

    /// Keeps the next timer true: an entry whose task does not wait for it any more must not come up.
    pub(super) fn drop_stale_backoffs(&mut self) {
        while let Some(Reverse((at, task))) = self.backoffs.peek().copied()
            && !self.is_backing_off(at, task)
        {
            self.backoffs.pop();
        }
    }

    fn is_backing_off(&self, until: Millis, task: TaskId) -> bool {
        self.packed(task).is_some_and(|packed| packed.phase() == TaskPhase::Pending && packed.time() == until)
    }
}

/// What a retry does to a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// It stays as it is.
    None,
    /// What was not successful runs again.
    Rest,
    /// Everything does.
    Whole,
}
