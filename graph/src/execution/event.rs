//! What can happen to a job, and what has to be done about it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::state::{AttemptEnd, ExecutorRef};
use crate::ids::{Attempt, ExecutorKey, Millis, StageIndex, TaskId};

/// Something that happened. Past tense; when, is said beside it.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The job was planned; its first stages may be resolved.
    Submitted,
    /// Placement gave the next `count` ready tasks of a stage (those whose `each` inputs lie there first, then by index) to an executor.
    Assigned {
        /// The stage.
        stage: StageIndex,
        /// The executor.
        on: ExecutorKey,
        /// How many; more than are ready is answered by `Ignored` for the rest.
        count: u32,
    },
    /// The executor refused an attempt: it did not start, and never will.
    LaunchRefused {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// Who refused.
        by: ExecutorKey,
        /// Why, for the user.
        message: String,
    },
    /// The attempt's process was started. Only a hint for the viewer: never needed for progress.
    AttemptStarted {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// On which executor.
        by: ExecutorKey,
        /// When, by the executor's clock.
        started_at: Millis,
    },
    /// The attempt is over. Judged by (executor, attempt); an executor's later incarnation may deliver what an earlier
    /// one ran.
    AttemptFinished {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// On which executor.
        by: ExecutorKey,
        /// How it ended.
        end: AttemptEnd,
    },
    /// The executor said what it has. Attempts in `scope` that are assigned to it and that it does not have are gone.
    ExecutorAnswered {
        /// Who answered.
        by: ExecutorKey,
        /// What it has, in any state, finished ones with undelivered results included.
        held: BTreeSet<(TaskId, Attempt)>,
        /// What a missing attempt means.
        scope: AnswerScope,
    },
    /// The executor was declared lost: whatever it was running is gone, and so are the outputs on it.
    ExecutorLost {
        /// The executor's name; all its incarnations up to this one.
        executor: ExecutorKey,
    },
    /// The attempt is gone with its executor, and the scheduler holds that against it. Comes before the executor's own
    /// restart or loss, for those attempts about which there is something to say.
    WentDown {
        /// Which task.
        task: TaskId,
        /// Which attempt.
        attempt: Attempt,
        /// With which executor.
        with: ExecutorKey,
        /// What follows.
        verdict: Verdict,
        /// Why, for the user.
        message: String,
    },
    /// The executor said that it does not have this output, or that it is corrupt.
    OutputLost {
        /// Which task's.
        task: TaskId,
        /// Of which attempt.
        attempt: Attempt,
    },
    /// An executor that leaves has given this output to another one, which has all of it now.
    OutputMoved {
        /// Which task's.
        task: TaskId,
        /// Of which attempt.
        attempt: Attempt,
        /// Who had it: the executor's name, in whichever life.
        from: String,
        /// Who has it.
        to: ExecutorKey,
    },
    /// A user wants the job to end.
    CancelRequested {
        /// In the user's words.
        reason: String,
    },
    /// A user wants what failed, and what never ran because of it, to run again in place.
    RetryRequested,
    /// The time that `next_timer` named has come.
    TimerFired,
}

/// What follows when an attempt is held to have taken its executor down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is tried again, then at the earliest.
    HeldBack {
        /// When.
        until: Millis,
    },
    /// It is not tried again, whatever its budget.
    GivenUp,
}

/// What it means that an executor does not have an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerScope {
    /// It restarted: attempts given to its earlier incarnations are gone; those given to this one may still be on the
    /// way to it.
    EarlierIncarnations,
    /// A new owner asked, and the asking fenced the old one off: every attempt it does not have will never come.
    Everything,
}

/// Something to do once the changes are committed. Imperative.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Start an attempt.
    Launch {
        /// Of which task.
        task: TaskId,
        /// Its number.
        attempt: Attempt,
        /// Where.
        on: ExecutorRef,
    },
    /// End an attempt whose result is no longer wanted, or that must end; it reports itself as finished.
    CancelAttempt {
        /// Of which task.
        task: TaskId,
        /// Its number.
        attempt: Attempt,
        /// Where.
        on: ExecutorRef,
    },
    /// Add to the job's log.
    Emit(JobEvent),
    /// The event changed nothing.
    Ignored {
        /// Why.
        why: Why,
    },
}

/// Why an event changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No such stage or task.
    Unknown,
    /// The attempt is not the task's newest, or not on that executor.
    Superseded,
    /// Said before.
    Duplicate,
    /// The same executor said otherwise of the same attempt: what was said first holds.
    Contradicts,
    /// The job or stage is over, or being cancelled.
    Over,
    /// Fewer tasks were ready than were assigned.
    NotReady,
    /// Nothing of the job was concerned.
    NotConcerned,
}

/// What the packed states cannot tell; kept in the job's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobEvent {
    /// An attempt ended without an accepted result.
    AttemptFailed(super::state::FailureNote),
    /// A stage came to a new state.
    StageMoved {
        /// Which.
        stage: StageIndex,
        /// Where to.
        state: super::state::StageState,
    },
    /// The job came to a new state.
    JobMoved {
        /// Where to.
        state: super::state::JobState,
    },
    /// Outputs were lost; their tasks run again.
    OutputsLost {
        /// Of which stage.
        stage: StageIndex,
        /// How many tasks.
        tasks: u32,
    },
    /// A user asked for a cancel.
    CancelRequested {
        /// In the user's words.
        reason: String,
    },
    /// A user asked for a retry.
    RetryRequested {
        /// How many tasks run again, or for the first time because of it.
        tasks: u32,
    },
    /// An output was made again and is not the same; tasks that read the earlier one run again.
    InputsChanged {
        /// The stage that reads.
        stage: StageIndex,
        /// How many tasks of it.
        tasks: u32,
    },
    /// The job's time was up; what was not begun is cancelled.
    JobTimedOut,
}
