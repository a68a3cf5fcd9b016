//! Attempts: assigned, started, finished, refused, failed.

use super::graph::Step;
use super::packed::TaskPhase;
use super::{
    Accepted, AttemptEnd, Effect, Ended, ExecutionGraph, ExecutorRef, Exit, FailureClass, FailureNote, JobEvent,
    JobState, Outcome, StageReason, StageRecord, StageState, TaskState, UnreadableInput, Why,
};
use crate::ids::{Attempt, ExecutorKey, Millis, StageIndex, TaskId};
use crate::plan::LossPolicy;
use crate::spec::Retries;

use super::requests::FAILURES_MAX;

/// How often an output may be made again at a reader's word before the reader pays for it from its own budget. An
/// executor that can read nothing would otherwise keep the producers busy for ever.
pub const FREE_REMAKES: u16 = 8;

/// An executor that refuses a task has said so at once; asking the next one need not wait longer than this.
const REFUSED_BACKOFF_MAX_MS: Millis = 1_000;

/// A message kept with a failure is cut to this many bytes: it is a line for people, and is written with the job's record.
const MESSAGE_MAX: usize = 512;

/// An attempt that came to nothing.
pub(super) struct Failure {
    pub(super) class: FailureClass,
    pub(super) exit: Exit,
    pub(super) message: String,
    /// Process start; 0: none was started.
    pub(super) started_at: Millis,
    pub(super) finished_at: Millis,
    /// It spends from the budget of its class.
    pub(super) counts: bool,
    pub(super) next: Next,
}

/// What follows a failure within its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    AtOnce,
    BacksOff,
    NotBefore(Millis),
    Never,
}

impl Next {
    fn backs_off_if(backs_off: bool) -> Self {
        if backs_off { Self::BacksOff } else { Self::AtOnce }
    }
}

impl ExecutionGraph {
    pub(super) fn assigned(&mut self, stage: StageIndex, on: ExecutorKey, count: u32, step: &mut Step<'_>) {
        let Some(value) = self.stages.get(stage.0 as usize) else { return step.ignore(Why::Unknown) };
        if self.is_over() || value.record.state.is_over() {
            return step.ignore(Why::Over);
        }
        let given = count.min(value.ready.len());
        if given > 0 {
            let mut close = self.close_to(stage.0, &on.id, given).into_iter();
            let on = self.heard_from(on);
            self.start_stage(stage.0, step);
            for _ in 0..given {
                let lowest = || self.stages[stage.0 as usize].ready.first();
                let Some(index) = close.next().or_else(lowest) else { break };
                let mut task = self.stages[stage.0 as usize].tasks[index as usize];
                task.attempt = task.attempt.max(self.numbers_above).saturating_add(1);
                self.set_task(stage.0, index, task.with(TaskState::Assigned { on, at: step.at }));
                let task_id = TaskId::new(stage.0, index);
                step.effects.push(Effect::Launch { task: task_id, attempt: task.attempt, on });
            }
        }
        if given < count {
            step.ignore(Why::NotReady);
        }
    }

    /// The first assignment moves the stage, and the job.
    fn start_stage(&mut self, stage: u32, step: &mut Step<'_>) {
        if self.record.started_at == 0 {
            self.record.started_at = step.at;
            self.changes.job = true;
        }
        self.set_job_state(JobState::Running, step);
        let record = self.stages[stage as usize].record;
        if record.state == StageState::Resolved {
            self.set_stage(stage, StageRecord { state: StageState::Running, started_at: step.at, ..record }, step);
        }
    }

    pub(super) fn started(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        by: ExecutorKey,
        started_at: Millis,
        step: &mut Step<'_>,
    ) {
        match self.judge(task, attempt, &by) {
            Err(why) => step.ignore(why),
            Ok(TaskPhase::Assigned) => {
                let on = self.heard_from(by);
                self.set_task_state(task.stage.0, task.index.0, TaskState::Running { on, started_at });
            }
            Ok(_) => step.ignore(Why::Duplicate),
        }
    }

    pub(super) fn refused(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        by: &ExecutorKey,
        message: String,
        step: &mut Step<'_>,
    ) {
        match self.judge(task, attempt, by) {
            Err(why) => step.ignore(why),
            Ok(TaskPhase::Assigned) => {
                let failure = Failure {
                    class: FailureClass::LaunchRefused,
                    exit: Exit::None,
                    message,
                    started_at: 0,
                    finished_at: step.at,
                    counts: true,
                    next: Next::BacksOff,
                };
                self.fail(task, failure, step);
            }
            Ok(_) => step.ignore(Why::Contradicts),
        }
    }

    pub(super) fn finished(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        by: ExecutorKey,
        end: AttemptEnd,
        step: &mut Step<'_>,
    ) {
        let phase = match self.judge(task, attempt, &by) {
            Ok(phase) => phase,
            Err(why) => return step.ignore(why),
        };
        let AttemptEnd { outcome, started_at, finished_at, exit, message, unreadable } = end;
        let failed = |class, counts, backs_off| {
            let next = Next::backs_off_if(backs_off);
            Failure { class, exit, message, started_at, finished_at, counts, next }
        };
        match outcome {
            Outcome::Succeeded(output) => {
                let on = self.heard_from(by);
                let ran_ms = ran_ms(started_at, finished_at);
                self.accept(task, Accepted { on, started_at, ran_ms, output }, step);
            }
            Outcome::Failed(FailureClass::InputUnreadable) => {
                let excused = self.lose_unreadable(task, &unreadable, step);
                // Whoever waits for an executor waits for what lies on it, too.
                let waits = self.plan.lost_after == LossPolicy::Never && unreadable.iter().any(|input| !input.gone);
                self.fail(task, failed(FailureClass::InputUnreadable, !excused && !waits, !excused), step);
            }
            Outcome::Failed(class) => {
                self.fail(task, failed(class, true, class != FailureClass::ExecutorLost), step);
            }
            Outcome::Cancelled if self.is_cancelling(task.stage.0) || self.is_stopped(task.stage.0) => {
                self.set_task_state(task.stage.0, task.index.0, TaskState::Cancelled);
            }
            // Nobody here asked for it: the executor gave the attempt up of its own accord, which must not go on for ever.
            Outcome::Cancelled if phase == TaskPhase::Assigned && started_at == 0 => {
                self.fail(task, failed(FailureClass::LaunchRefused, true, true), step);
            }
            Outcome::GivenBack if phase == TaskPhase::Assigned && started_at == 0 => {
                let state = self.resting_state(task.stage.0, task.index.0, 0, step);
                self.set_task_state(task.stage.0, task.index.0, state);
            }
            Outcome::Cancelled | Outcome::GivenBack => {
                self.fail(task, failed(FailureClass::ExecutorLost, true, false), step);
            }
        }
    }

    /// Whether a report is about an attempt that is awaited, and in which phase that is; otherwise why it is not.
    pub(super) fn judge(&self, task: TaskId, attempt: Attempt, by: &ExecutorKey) -> Result<TaskPhase, Why> {
        let packed = self.packed(task).ok_or(Why::Unknown)?;
        let on = packed.on().and_then(|on| self.executor(on));
        let same_attempt = packed.attempt == attempt && on.is_some_and(|on| on.id == by.id);
        if same_attempt && packed.is_live() {
            let not_older = on.is_some_and(|on| on.incarnation <= by.incarnation);
            return if not_older { Ok(packed.phase()) } else { Err(Why::Superseded) };
        }
        Err(match packed.phase() {
            TaskPhase::Successful | TaskPhase::Failed if same_attempt => Why::Duplicate,
            _ if self.is_over() => Why::Over,
            _ => Why::Superseded,
        })
    }

    fn accept(&mut self, task: TaskId, accepted: Accepted, step: &mut Step<'_>) {
        let (stage, index) = (task.stage.0, task.index.0);
        let packed = self.stages[stage as usize].tasks[index as usize];
        self.set_task_state(stage, index, TaskState::Successful(accepted));
        if packed.generation > 0 {
            let differs = !self.stage_plan(stage).deterministic || packed.given_up() != Some(accepted.output.checksum);
            self.output_made_again(task, differs, step);
        }
    }

    /// Charges a failed attempt of an assigned or running task, and decides whether another one follows.
    pub(super) fn fail(&mut self, task: TaskId, failure: Failure, step: &mut Step<'_>) {
        let (stage, index) = (task.stage.0, task.index.0);
        let mut packed = self.stages[stage as usize].tasks[index as usize];
        let Failure { class, exit, message, started_at, finished_at, counts, next } = failure;
        let on = packed.on().unwrap_or(ExecutorRef(0));
        let spent = &mut packed.spent[class as usize];
        if counts {
            *spent = spent.saturating_add(1);
        }
        let spent = *spent;
        let retries = &self.stage_plan(stage).retries;
        let is_last = spent > budget(retries, class) || next == Next::Never;
        let not_before = match next {
            Next::AtOnce | Next::Never => 0,
            Next::NotBefore(at) => at,
            Next::BacksOff => {
                let seed = [self.job_id.0, task_bits(task), u64::from(packed.attempt)];
                match backoff_ms(retries, class, spent, seed) {
                    0 => 0,
                    delay => step.at.saturating_add(delay),
                }
            }
        };
        let state = if is_last || (self.is_stopped(stage) && class.is_own()) {
            let ran_ms = ran_ms(started_at, finished_at);
            TaskState::Failed(Ended { on, started_at, ran_ms, class, exit })
        } else {
            self.resting_state(stage, index, not_before, step)
        };
        let is_final = !matches!(state, TaskState::Pending { .. });
        let message = cut(message);
        let note = FailureNote { task, attempt: packed.attempt, on, class, exit, message, at: step.at, is_final };
        step.emit(JobEvent::AttemptFailed(note.clone()));
        self.set_task(stage, index, packed.with(state));
        if matches!(state, TaskState::Failed(_)) {
            self.task_failed(task, note, step);
        }
    }

    /// What follows from a task's final failure.
    fn task_failed(&mut self, task: TaskId, note: FailureNote, step: &mut Step<'_>) {
        let stage = task.stage.0;
        if self.record.failures.len() < FAILURES_MAX {
            self.record.failures.push(note);
            self.changes.job = true;
        }
        let record = self.stages[stage as usize].record;
        if !matches!(record.reason, StageReason::TaskFailed(_)) {
            self.set_stage(stage, StageRecord { reason: StageReason::TaskFailed(task), ..record }, step);
        }
        if self.is_stopped(stage) {
            self.cancel_pending(stage);
        }
    }

    /// Gives up those of a task's inputs that an executor says are gone. True if one of them is being made again, so that
    /// the reader has to wait for that and is not to blame, or has only been looked for where it lay before.
    fn lose_unreadable(&mut self, reader: TaskId, unreadable: &[UnreadableInput], step: &mut Step<'_>) -> bool {
        let mut excused = false;
        for input in unreadable {
            if !self.reads_from(reader.stage.0, input.task.stage) {
                continue;
            }
            if self.lies_elsewhere(input) {
                excused = true;
                continue;
            }
            if !input.gone {
                continue;
            }
            // Still judged as held by its reader, which therefore counts as needing it.
            let _ = self.lose_output(input.task, input.attempt, step);
            excused |= self.packed(input.task).is_some_and(|input| {
                !input.is_successful() && input.phase() < TaskPhase::Failed && input.generation <= FREE_REMAKES
            });
        }
        excused
    }

    /// Whether an input has moved since a reader was told where it lies.
    fn lies_elsewhere(&self, input: &UnreadableInput) -> bool {
        let Some(packed) = self.packed(input.task).filter(|packed| packed.has_output()) else { return false };
        let on = packed.on().and_then(|on| self.executor(on));
        !input.on.is_empty() && packed.attempt == input.attempt && on.is_some_and(|on| on.id != input.on)
    }
}

/// How many failed attempts of a class a task may have. 255 is without end.
pub(super) fn budget(retries: &Retries, class: FailureClass) -> u8 {
    match class {
        FailureClass::Failed => retries.failed,
        FailureClass::TimedOut => retries.timed_out,
        FailureClass::OutOfMemory => retries.out_of_memory,
        FailureClass::ExecutorLost => retries.executor_lost,
        FailureClass::LaunchRefused => retries.launch_refused,
        FailureClass::InputUnreadable => retries.input_unreadable,
    }
}

/// Exponential backoff before the next attempt, after `spent` failed ones of the class.
fn backoff_ms(retries: &Retries, class: FailureClass, spent: u8, seed: [u64; 3]) -> Millis {
    let whole = longest_backoff_ms(retries, class, spent);
    let half = whole / 2;
    half + hash(seed) % (whole - half + 1)
}

/// The same without its jitter.
pub(super) fn longest_backoff_ms(retries: &Retries, class: FailureClass, spent: u8) -> Millis {
    let millis = |duration: std::time::Duration| Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX);
    let (first, max) = (millis(retries.backoff), millis(retries.backoff_max));
    if class == FailureClass::LaunchRefused {
        first.min(REFUSED_BACKOFF_MAX_MS)
    } else {
        let doublings = u32::from(spent.saturating_sub(1));
        2u64.checked_pow(doublings).and_then(|factor| first.checked_mul(factor)).unwrap_or(Millis::MAX).min(max)
    }
}

fn task_bits(task: TaskId) -> u64 {
    (u64::from(task.stage.0) << 32) | u64::from(task.index.0)
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014), chained.
fn hash(values: [u64; 3]) -> u64 {
    values.into_iter().fold(0, |state, value| {
        let mut mixed = (state ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// How long a process ran; 0 if none was started.
pub(super) fn ran_ms(started_at: Millis, finished_at: Millis) -> u32 {
    if started_at == 0 { 0 } else { u32::try_from(finished_at.saturating_sub(started_at)).unwrap_or(u32::MAX) }
}

/// Cuts a message to its limit, between characters.
fn cut(mut message: String) -> String {
    if message.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX).rev().find(|&end| message.is_char_boundary(end)).unwrap_or(0);
        message.truncate(end);
    }
    message
}
