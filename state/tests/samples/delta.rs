//! A commit's delta with everything that one can hold.

use muster_graph::execution::{
    Accepted, Delta, Ended, ExecutorRef, Exit, FailureClass, FailureNote, JobRecord, JobState, Output, StageReason,
    StageRecord, StageState, Task, TaskRun, TaskState,
};
use muster_graph::ids::{ExecutorKey, StageIndex, TaskId};

pub(crate) fn note() -> FailureNote {
    FailureNote {
        task: TaskId::new(1, 2),
        attempt: 3,
        on: ExecutorRef(0),
        class: FailureClass::TimedOut,
        exit: Exit::Signal(9),
        message: "ran longer than 5 s".to_owned(),
        at: 1_800_000_000_123,
        is_final: true,
    }
}

/// Every state that a task can be in, so that no variant's number can move unseen.
pub(crate) fn delta() -> Delta {
    let states = [
        TaskState::Pending { not_before: 1_800_000_000_500 },
        TaskState::Assigned { on: ExecutorRef(0), at: 1_800_000_000_001 },
        TaskState::Running { on: ExecutorRef(1), started_at: 1_800_000_000_002 },
        TaskState::Successful(Accepted {
            on: ExecutorRef(1),
            started_at: 1_800_000_000_003,
            ran_ms: 77,
            output: Output { bytes: 1 << 40, checksum: u64::MAX, files: 3 },
        }),
        TaskState::Failed(Ended {
            on: ExecutorRef(0),
            started_at: 1_800_000_000_004,
            ran_ms: u32::MAX,
            class: FailureClass::OutOfMemory,
            exit: Exit::Code(-1),
        }),
        TaskState::Cancelled,
    ];
    let run = |(first, state): (u32, TaskState)| TaskRun {
        stage: StageIndex(1),
        first: first * 10,
        count: 10,
        task: Task { attempt: first, spent: [0, 1, 2, 3, 4, 255], generation: 2, state },
    };
    let stage = StageRecord {
        state: StageState::Running,
        reason: StageReason::TaskFailed(TaskId::new(0, 5)),
        started_at: 1,
        finished_at: 0,
        inputs_revision: 4,
    };
    Delta {
        job: Some(JobRecord {
            state: JobState::Running,
            cancel: Some("enough".to_owned()),
            timed_out: true,
            started_at: 1_800_000_000_000,
            finished_at: 0,
            failures: vec![note()],
        }),
        executors: vec![(ExecutorRef(1), ExecutorKey { id: "node-1".to_owned(), incarnation: 1_800_000_000 })],
        stages: vec![(StageIndex(1), stage)],
        tasks: (0..).zip(states).map(run).collect(),
        given_up: vec![(TaskId::new(1, 7), 0xdead_beef)],
        lost: vec![(ExecutorRef(0), true)],
    }
}
