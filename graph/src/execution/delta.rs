//! New values of what changed. A snapshot is a delta from nothing, and a bucket is a delta of neighbours, so that one
//! codec and one way of restoring serve all three.
//!
//! Deltas hold resulting states, never inputs: a later version's rules never decide an earlier version's past again.

use serde::{Deserialize, Serialize};

use super::state::{ExecutorRef, FailureNote, JobState, StageReason, StageState, TaskState};
use crate::ids::{Attempt, ExecutorKey, Millis, StageIndex};

/// New values of everything that changed since the last one was taken.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    /// The job's own record, if it changed.
    pub job: Option<JobRecord>,
    /// Executors heard of for the first time.
    pub executors: Vec<(ExecutorRef, ExecutorKey)>,
    /// Stages' own records.
    pub stages: Vec<(StageIndex, StageRecord)>,
    /// Tasks, equal neighbours together: whatever strikes a whole stage is one entry.
    pub tasks: Vec<TaskRun>,
}

/// The job's own record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Where it is.
    pub state: JobState,
    /// A user's words, if a cancel was asked for and has not been undone by a retry.
    pub cancel: Option<String>,
    /// The job's time-out struck.
    pub timed_out: bool,
    /// First assignment; 0: none yet.
    pub started_at: Millis,
    /// 0: not yet.
    pub finished_at: Millis,
    /// The first failures, oldest first; bounded.
    pub failures: Vec<FailureNote>,
}

/// A stage's own record. Its counts follow from its tasks and are not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// Where it is.
    pub state: StageState,
    /// Why.
    pub reason: StageReason,
    /// First assignment; 0: none yet.
    pub started_at: Millis,
    /// 0: not yet.
    pub finished_at: Millis,
    /// Rises when an output that the stage reads as a whole was made again: what was fetched before is stale.
    pub inputs_revision: u32,
}

/// Neighbouring tasks with equal values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRun {
    /// The stage.
    pub stage: StageIndex,
    /// Index of the first one.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The value that all of them have.
    pub task: Task,
}

/// One task. At most 64 bytes in memory; a test holds it to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Number of the newest attempt; 0: none yet.
    pub attempt: Attempt,
    /// Failed attempts by class, in the order of `FailureClass`; saturating.
    pub spent: [u8; 6],
    /// How often an accepted output was given up and the task run again.
    pub generation: u16,
    /// Where it is.
    pub state: TaskState,
}
