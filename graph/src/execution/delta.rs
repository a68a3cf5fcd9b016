//! New values of what changed. A snapshot is a delta from nothing, and a bucket is a delta of neighbours, so that one
//! codec and one way of restoring serve all three.
//!
//! Deltas hold resulting states, never inputs: a later version's rules never decide an earlier version's past again.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::state::{ExecutorRef, FailureNote, JobState, StageReason, StageState, TaskState};
use crate::ids::{Attempt, ExecutorKey, Millis, StageIndex, TaskId};

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
    /// Of the tasks in `tasks`, those that are to make an output again, with the checksum of the one that was given up.
    /// A task in `tasks` and not here has given up nothing that matters any more.
    pub given_up: Vec<(TaskId, u64)>,
    /// Executors whose outputs came to be regarded as lost (`true`), or not so any more.
    pub lost: Vec<(ExecutorRef, bool)>,
}

impl Delta {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The parts that a folder has to write anew: each is one record or bucket, aligned to its size. Its present value is
    /// what [`super::ExecutionGraph::extract`] gives for it.
    #[must_use]
    pub fn parts_touched(&self, sizes: PartSizes) -> BTreeSet<Part> {
        let mut parts = BTreeSet::new();
        if self.job.is_some() {
            parts.insert(Part::Job);
        }
        let executors =
            self.executors.iter().map(|(executor, _)| executor).chain(self.lost.iter().map(|(lost, _)| lost));
        for executor in executors {
            let count = sizes.executors.max(1);
            parts.insert(Part::Executors { first: executor.0 / count * count, count });
        }
        for (stage, _) in &self.stages {
            let count = sizes.stages.max(1);
            parts.insert(Part::Stages { first: stage.0 / count * count, count });
        }
        for run in self.tasks.iter().filter(|run| run.count > 0) {
            let count = sizes.tasks.max(1);
            let last = run.first.saturating_add(run.count - 1);
            for bucket in run.first / count..=last / count {
                parts.insert(Part::Tasks { stage: run.stage, first: bucket * count, count });
            }
        }
        parts
    }
}

/// A piece of a graph's state that is stored by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Part {
    /// The job's own record.
    Job,
    /// The names of executors, and which of them are lost.
    Executors {
        /// The first one's number.
        first: u32,
        /// At most so many.
        count: u32,
    },
    /// Stages' own records.
    Stages {
        /// The first one's index.
        first: u32,
        /// At most so many.
        count: u32,
    },
    /// Neighbouring tasks of one stage.
    Tasks {
        /// The stage.
        stage: StageIndex,
        /// The first one's index.
        first: u32,
        /// At most so many.
        count: u32,
    },
}

/// How many neighbours are stored together, by kind. Once chosen for a job, they must stay: parts are named by their first
/// element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartSizes {
    /// Executors in a part.
    pub executors: u32,
    /// Stages in a part.
    pub stages: u32,
    /// Tasks in a bucket.
    pub tasks: u32,
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
    /// First assignment since the submit or the last retry; 0: none yet. The job's time-out runs from here.
    pub started_at: Millis,
    /// 0: not yet.
    pub finished_at: Millis,
    /// The first final failures since the submit or the last retry, oldest first; bounded.
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
