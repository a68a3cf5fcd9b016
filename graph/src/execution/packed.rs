//! A task in 48 bytes.
//!
//! [`Task`] is made for reading: an enum of records with times of 64 bits. A job of a million tasks keeps them in this
//! form instead, which overlays what no two states need at once, and converts at the edge. It also holds what a task
//! remembers of an output that was given up (see `outputs`), for which [`Task`] has no place: [`super::Delta`] carries
//! it beside the tasks.
//!
//! Invariant: fields that a state does not use are zero, so that equal tasks are equal bytes.

use super::Task;
use super::state::{Accepted, Ended, ExecutorRef, Exit, FailureClass, Output, TaskState};
use crate::ids::{Attempt, Millis};

/// Times share their word with the state; 56 bits of milliseconds are two million years. Later ones are cut to this.
pub(super) const TIME_MAX: Millis = (1 << 56) - 1;

/// Where a task is, without data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TaskPhase {
    /// See [`TaskState::Pending`].
    Pending = 0,
    /// See [`TaskState::Assigned`].
    Assigned = 1,
    /// See [`TaskState::Running`].
    Running = 2,
    /// See [`TaskState::Successful`].
    Successful = 3,
    /// See [`TaskState::Failed`].
    Failed = 4,
    /// See [`TaskState::Cancelled`].
    Cancelled = 5,
}

impl TaskState {
    /// The state without its data.
    #[must_use]
    pub fn phase(&self) -> TaskPhase {
        match self {
            Self::Pending { .. } => TaskPhase::Pending,
            Self::Assigned { .. } => TaskPhase::Assigned,
            Self::Running { .. } => TaskPhase::Running,
            Self::Successful(_) => TaskPhase::Successful,
            Self::Failed(_) => TaskPhase::Failed,
            Self::Cancelled => TaskPhase::Cancelled,
        }
    }
}

const PHASE_SHIFT: u32 = 56;
const PHASE_MASK: u64 = 0b111 << PHASE_SHIFT;
/// `checksum` holds that of an output that was given up.
const GIVEN_UP: u64 = 1 << 63;

/// A [`Task`] and the checksum of its given-up output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Packed {
    /// Successful: the output's bytes. Failed: the exit's kind and number.
    bytes: u64,
    /// Successful: the output's. Otherwise the given-up output's, if the flag says so.
    checksum: u64,
    /// Bits 0..56 a time, 56..59 the phase, 63 the flag.
    time: u64,
    ran_ms: u32,
    /// Successful: the output's. Failed: the class.
    files: u32,
    on: u32,
    /// See [`Task::attempt`].
    pub(super) attempt: Attempt,
    /// See [`Task::spent`].
    pub(super) spent: [u8; 6],
    /// See [`Task::generation`].
    pub(super) generation: u16,
}

impl Packed {
    /// Packs a task.
    pub(super) fn new(task: Task, given_up: Option<u64>) -> Self {
        let Task { attempt, spent, generation, state } = task;
        let mut packed = Self { attempt, spent, generation, ..Self::default() };
        packed.set_state(state);
        packed.give_up(given_up);
        packed
    }

    /// Unpacks it.
    pub(super) fn task(&self) -> Task {
        Task { attempt: self.attempt, spent: self.spent, generation: self.generation, state: self.state() }
    }

    /// Its state without data.
    pub(super) fn phase(&self) -> TaskPhase {
        match (self.time & PHASE_MASK) >> PHASE_SHIFT {
            0 => TaskPhase::Pending,
            1 => TaskPhase::Assigned,
            2 => TaskPhase::Running,
            3 => TaskPhase::Successful,
            4 => TaskPhase::Failed,
            _ => TaskPhase::Cancelled,
        }
    }

    /// Whether it is assigned or running.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase(), TaskPhase::Assigned | TaskPhase::Running)
    }

    /// Whether its result was accepted.
    pub(super) fn is_successful(&self) -> bool {
        self.phase() == TaskPhase::Successful
    }

    /// How long the attempt ran that counts: the accepted one, or the last one of a failed task. 0 in any other state.
    pub(super) fn ran_ms(&self) -> u32 {
        self.ran_ms
    }

    /// Whether it is successful and left something that can be lost.
    pub(super) fn has_output(&self) -> bool {
        self.is_successful() && self.files > 0
    }

    /// The executor of its state, if the state has one.
    pub(super) fn on(&self) -> Option<ExecutorRef> {
        match self.phase() {
            TaskPhase::Pending | TaskPhase::Cancelled => None,
            _ => Some(ExecutorRef(self.on)),
        }
    }

    /// The end of its backoff, or its start.
    pub(super) fn time(&self) -> Millis {
        self.time & TIME_MAX
    }

    /// The checksum of an output that was given up and not yet made again.
    pub(super) fn given_up(&self) -> Option<u64> {
        (self.time & GIVEN_UP != 0).then_some(self.checksum)
    }

    fn give_up(&mut self, checksum: Option<u64>) {
        if let Some(checksum) = checksum
            && !self.is_successful()
        {
            self.time |= GIVEN_UP;
            self.checksum = checksum;
        }
    }

    /// The same task in another state. What was given up stays remembered until a new output is accepted.
    pub(super) fn with(mut self, state: TaskState) -> Self {
        let given_up = self.given_up();
        self.set_state(state);
        self.give_up(given_up);
        self
    }

    /// The same task without its accepted result: a generation later, in `state`.
    pub(super) fn without_result(mut self, state: TaskState) -> Self {
        let checksum = if self.is_successful() { Some(self.checksum) } else { self.given_up() };
        self.generation = self.generation.saturating_add(1);
        self.set_state(state);
        self.give_up(checksum);
        self
    }

    /// Its state.
    pub(super) fn state(&self) -> TaskState {
        let (on, time) = (ExecutorRef(self.on), self.time());
        match self.phase() {
            TaskPhase::Pending => TaskState::Pending { not_before: time },
            TaskPhase::Assigned => TaskState::Assigned { on, at: time },
            TaskPhase::Running => TaskState::Running { on, started_at: time },
            TaskPhase::Successful => TaskState::Successful(Accepted {
                on,
                started_at: time,
                ran_ms: self.ran_ms,
                output: Output { bytes: self.bytes, checksum: self.checksum, files: self.files },
            }),
            TaskPhase::Failed => TaskState::Failed(Ended {
                on,
                started_at: time,
                ran_ms: self.ran_ms,
                class: class_of(self.files),
                exit: exit_of(self.bytes),
            }),
            TaskPhase::Cancelled => TaskState::Cancelled,
        }
    }

    fn set_state(&mut self, state: TaskState) {
        (self.bytes, self.checksum, self.ran_ms, self.files, self.on) = (0, 0, 0, 0, 0);
        let time = match state {
            TaskState::Pending { not_before } => not_before,
            TaskState::Assigned { on, at } => {
                self.on = on.0;
                at
            }
            TaskState::Running { on, started_at } => {
                self.on = on.0;
                started_at
            }
            TaskState::Successful(accepted) => {
                self.on = accepted.on.0;
                self.ran_ms = accepted.ran_ms;
                self.bytes = accepted.output.bytes;
                self.checksum = accepted.output.checksum;
                self.files = accepted.output.files;
                accepted.started_at
            }
            TaskState::Failed(ended) => {
                self.on = ended.on.0;
                self.ran_ms = ended.ran_ms;
                self.files = ended.class as u32;
                self.bytes = exit_bits(ended.exit);
                ended.started_at
            }
            TaskState::Cancelled => 0,
        };
        self.time = time.min(TIME_MAX) | ((state.phase() as u64) << PHASE_SHIFT);
    }
}

/// Kind of exit in the upper half, its number in the lower.
fn exit_bits(exit: Exit) -> u64 {
    match exit {
        Exit::None => 0,
        Exit::Code(code) => (1 << 32) | u64::from(code.cast_unsigned()),
        Exit::Signal(signal) => (2 << 32) | u64::from(signal),
    }
}

fn exit_of(bits: u64) -> Exit {
    let [low, _, _, _, kind, ..] = bits.to_le_bytes();
    match kind {
        0 => Exit::None,
        1 => Exit::Code((bits & u64::from(u32::MAX)) as u32 as i32),
        _ => Exit::Signal(low),
    }
}

fn class_of(bits: u32) -> FailureClass {
    FailureClass::ALL.get(bits as usize).copied().unwrap_or(FailureClass::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_takes_48_bytes_in_memory_and_no_more_than_64_in_the_hand() {
        assert_eq!(size_of::<Packed>(), 48);
        assert!(size_of::<Task>() <= 64, "{}", size_of::<Task>());
    }

    #[test]
    fn every_state_survives_packing_and_what_was_given_up_lasts_until_a_new_output_is_accepted() {
        let on = ExecutorRef(7);
        let output = Output { bytes: u64::MAX, checksum: u64::MAX - 1, files: u32::MAX };
        let mut states = vec![
            TaskState::Pending { not_before: 0 },
            TaskState::Pending { not_before: TIME_MAX },
            TaskState::Assigned { on, at: 3 },
            TaskState::Running { on, started_at: 4 },
            TaskState::Successful(Accepted { on, started_at: TIME_MAX, ran_ms: u32::MAX, output }),
            TaskState::Cancelled,
        ];
        for class in FailureClass::ALL {
            for exit in [Exit::None, Exit::Code(-1), Exit::Code(i32::MIN), Exit::Code(255), Exit::Signal(9)] {
                states.push(TaskState::Failed(Ended { on, started_at: 5, ran_ms: 6, class, exit }));
            }
        }
        for state in states {
            let task = Task { attempt: 9, spent: [1, 2, 3, 4, 5, 255], generation: 2, state };
            assert_eq!(Packed::new(task, None).task(), task);
            let remembering = Packed::new(task, Some(0));
            assert_eq!(remembering.task(), task);
            assert_eq!(remembering.given_up(), (state.phase() != TaskPhase::Successful).then_some(0));
            let pending = remembering.with(TaskState::Pending { not_before: 0 });
            assert_eq!(pending.given_up(), remembering.given_up());
        }
        let accepted = TaskState::Successful(Accepted { on, started_at: 1, ran_ms: 1, output });
        let first = Packed::default().with(accepted);
        let again = first.without_result(TaskState::Pending { not_before: 0 });
        assert_eq!((again.given_up(), again.generation), (Some(output.checksum), 1));
        assert_eq!(again.with(accepted).given_up(), None);
    }
}
