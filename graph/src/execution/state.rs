//! The states of job, stages and tasks. A state carries its data.

use serde::{Deserialize, Serialize};

use super::packed::TaskPhase;
use crate::ids::{Attempt, Millis, StageIndex, TaskId};

/// An executor's life, as a number local to the job (an [`crate::ids::ExecutorKey`] is interned once per job).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecutorRef(pub u32);

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum JobState {
    /// Planned, nothing assigned yet.
    Queued,
    /// Something was assigned, or is being cancelled.
    Running,
    /// Every stage was successful or skipped on purpose.
    Successful,
    /// A stage failed.
    Failed,
    /// A user ended it before its own end.
    Cancelled,
}

impl JobState {
    /// Whether it came to its end.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// Where a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StageState {
    /// Waits for upstream stages.
    Unresolved,
    /// May run: inputs are there (or, with `each`, may come one by one). Nothing assigned yet.
    Resolved,
    /// At least one task was assigned.
    Running,
    /// All tasks were successful.
    Successful,
    /// A task failed and its budget was used up, and nothing of the stage runs any more.
    Failed,
    /// Ended by a user.
    Cancelled,
    /// Its condition cannot hold any more.
    Skipped,
}

impl StageState {
    /// Whether nothing of the stage will run, unless an output is lost or a retry is asked for.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Unresolved | Self::Resolved | Self::Running)
    }
}

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// Not assigned. Whether it is ready follows from its stage and its inputs.
    Pending {
        /// Backing off until then; 0: not.
        not_before: Millis,
    },
    /// Given to an executor, which has not said yet that it started.
    Assigned {
        /// Whom.
        on: ExecutorRef,
        /// When.
        at: Millis,
    },
    /// Its process runs.
    Running {
        /// Where.
        on: ExecutorRef,
        /// Since when, by the executor's clock.
        started_at: Millis,
    },
    /// One attempt's result was accepted.
    Successful(Accepted),
    /// Its budget was used up.
    Failed(Ended),
    /// Ended by a user, or not begun because its stage stopped.
    Cancelled,
}

/// The accepted result of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Where it ran and its output lies.
    pub on: ExecutorRef,
    /// Process start; 0: none was started.
    pub started_at: Millis,
    /// How long it ran; saturates at 49 days.
    pub ran_ms: u32,
    /// What it left behind.
    pub output: Output,
}

/// The last attempt of a failed task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Where it ran.
    pub on: ExecutorRef,
    /// Process start; 0: none was started.
    pub started_at: Millis,
    /// How long it ran; saturates at 49 days.
    pub ran_ms: u32,
    /// Why it counts as a failure.
    pub class: FailureClass,
    /// How its process ended.
    pub exit: Exit,
}

/// What a successful attempt left behind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Sum of the sizes of all files.
    pub bytes: u64,
    /// Over names, sizes and contents; 0 where there is no file.
    pub checksum: u64,
    /// How many; 0: there is nothing that could be lost.
    pub files: u32,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// None was started, or its end was not seen.
    None,
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(u8),
}

/// Why an attempt had no accepted result. Each class has a budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FailureClass {
    /// The task's own doing.
    Failed,
    /// Ran longer than allowed.
    TimedOut,
    /// The cgroup says that it was killed for memory.
    OutOfMemory,
    /// Its executor went away, or restarted.
    ExecutorLost,
    /// Its executor did not take it.
    LaunchRefused,
    /// Its inputs could not be read.
    InputUnreadable,
}

impl FailureClass {
    /// All, in the order in which [`super::Task::spent`] counts them.
    pub const ALL: [Self; 6] = [
        Self::Failed,
        Self::TimedOut,
        Self::OutOfMemory,
        Self::ExecutorLost,
        Self::LaunchRefused,
        Self::InputUnreadable,
    ];

    /// Whether the task itself is to blame, as opposed to the machines around it.
    #[must_use]
    pub fn is_own(self) -> bool {
        matches!(self, Self::Failed | Self::TimedOut | Self::OutOfMemory)
    }
}

/// How an attempt ended, as its executor reports it.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEnd {
    /// Success, failure, or ended on request.
    pub outcome: Outcome,
    /// Process start; 0: none was started.
    pub started_at: Millis,
    /// By the executor's clock.
    pub finished_at: Millis,
    /// How the process ended.
    pub exit: Exit,
    /// For the user, in one line.
    pub message: String,
    /// Inputs that could not be read.
    pub unreadable: Vec<UnreadableInput>,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Here is its output.
    Succeeded(Output),
    /// It failed.
    Failed(FailureClass),
    /// It was ended because a scheduler said so.
    Cancelled,
    /// A scheduler asked for it back before it began, and now it never will: nothing of it counts.
    GivenBack,
}

/// An input that an attempt could not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableInput {
    /// Whose output.
    pub task: TaskId,
    /// Of which attempt.
    pub attempt: Attempt,
    /// The executor on which it was looked for; empty: not said.
    pub on: String,
    /// Its executor answered that it is not there or corrupt (as opposed to one that could not be reached).
    pub gone: bool,
}

/// A failed attempt, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureNote {
    /// Which task.
    pub task: TaskId,
    /// Which attempt.
    pub attempt: Attempt,
    /// Where.
    pub on: ExecutorRef,
    /// Why.
    pub class: FailureClass,
    /// How its process ended.
    pub exit: Exit,
    /// In one line.
    pub message: String,
    /// When it was reported.
    pub at: Millis,
    /// No further attempt follows.
    pub is_final: bool,
}

/// How many tasks are in each state. Always equal to a recount (promise C6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not assigned.
    pub pending: u32,
    /// Assigned, not yet started.
    pub assigned: u32,
    /// Running.
    pub running: u32,
    /// Successful.
    pub successful: u32,
    /// Failed.
    pub failed: u32,
    /// Cancelled.
    pub cancelled: u32,
}

impl Counts {
    /// All tasks.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.live() + self.successful + self.failed + self.cancelled
    }

    /// Those that are not over: pending, assigned or running.
    #[must_use]
    pub fn live(&self) -> u32 {
        self.pending + self.held()
    }

    /// Those that an executor has: assigned or running.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.assigned + self.running
    }

    /// The number of one phase, to be changed.
    pub(super) fn of(&mut self, phase: TaskPhase) -> &mut u32 {
        match phase {
            TaskPhase::Pending => &mut self.pending,
            TaskPhase::Assigned => &mut self.assigned,
            TaskPhase::Running => &mut self.running,
            TaskPhase::Successful => &mut self.successful,
            TaskPhase::Failed => &mut self.failed,
            TaskPhase::Cancelled => &mut self.cancelled,
        }
    }
}

/// Why a stage is where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageReason {
    /// Nothing special.
    None,
    /// This upstream stage was not successful.
    UpstreamNotSuccessful(StageIndex),
    /// `when: on_failure`, and nothing failed.
    NothingFailed,
    /// This task used up its budget.
    TaskFailed(TaskId),
    /// A user cancelled the job.
    CancelRequested,
    /// The job's time was up.
    JobTimedOut,
}
