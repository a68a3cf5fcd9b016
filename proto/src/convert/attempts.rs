//! Attempts: their names, their ends, and the states that follow.

use muster_graph::execution as graph;
use muster_graph::ids::{ExecutorKey, JobId, TaskId};

use super::{Invalid, job_id};
use crate::v1;

/// The task that a reference of the wire names.
pub fn attempt_ref(attempt: &v1::AttemptRef) -> Result<(JobId, TaskId, u32), Invalid> {
    Ok((job_id(&attempt.job_id)?, TaskId::new(attempt.stage, attempt.index), attempt.attempt))
}

/// The reference of an attempt, for the wire.
#[must_use]
pub fn to_attempt_ref(job: JobId, task: TaskId, attempt: u32) -> v1::AttemptRef {
    v1::AttemptRef { job_id: job.to_string(), stage: task.stage.0, index: task.index.0, attempt }
}

/// An executor's life.
#[must_use]
pub fn executor_key(id: &str, incarnation: u64) -> ExecutorKey {
    ExecutorKey { id: id.to_owned(), incarnation }
}

impl From<graph::Output> for v1::Output {
    fn from(output: graph::Output) -> Self {
        Self { bytes: output.bytes, checksum: output.checksum, files: output.files }
    }
}

impl From<v1::Output> for graph::Output {
    fn from(output: v1::Output) -> Self {
        Self { bytes: output.bytes, checksum: output.checksum, files: output.files }
    }
}

/// The process's end, for the wire.
#[must_use]
pub fn to_exit(exit: graph::Exit) -> Option<v1::Exit> {
    let how = match exit {
        graph::Exit::None => return None,
        graph::Exit::Code(code) => v1::exit::How::Code(code),
        graph::Exit::Signal(signal) => v1::exit::How::Signal(signal.into()),
    };
    Some(v1::Exit { how: Some(how) })
}

/// The process's end.
#[must_use]
pub fn exit(exit: Option<v1::Exit>) -> graph::Exit {
    match exit.and_then(|e| e.how) {
        None => graph::Exit::None,
        Some(v1::exit::How::Code(code)) => graph::Exit::Code(code),
        Some(v1::exit::How::Signal(signal)) => graph::Exit::Signal(u8::try_from(signal).unwrap_or(u8::MAX)),
    }
}

/// An attempt's end, as the rules judge it.
pub fn attempt_end(finished: v1::AttemptFinished) -> Result<graph::AttemptEnd, Invalid> {
    use graph::FailureClass as Class;
    let outcome = match v1::Outcome::try_from(finished.outcome) {
        Ok(v1::Outcome::Succeeded) => {
            graph::Outcome::Succeeded(finished.output.map(graph::Output::from).unwrap_or_default())
        }
        Ok(v1::Outcome::Failed) => graph::Outcome::Failed(Class::Failed),
        Ok(v1::Outcome::TimedOut) => graph::Outcome::Failed(Class::TimedOut),
        Ok(v1::Outcome::OutOfMemory) => graph::Outcome::Failed(Class::OutOfMemory),
        Ok(v1::Outcome::ExecutorLost) => graph::Outcome::Failed(Class::ExecutorLost),
        Ok(v1::Outcome::LaunchRefused) => graph::Outcome::Failed(Class::LaunchRefused),
        Ok(v1::Outcome::InputUnreadable) => graph::Outcome::Failed(Class::InputUnreadable),
        Ok(v1::Outcome::Cancelled) => graph::Outcome::Cancelled,
        Ok(v1::Outcome::GivenBack) => graph::Outcome::GivenBack,
        Ok(v1::Outcome::Unspecified) | Err(_) => {
            return Err(Invalid::new("finished.outcome", format!("{} is unknown to this version", finished.outcome)));
        }
    };
    Ok(graph::AttemptEnd {
        outcome,
        started_at: finished.started_at_ms,
        finished_at: finished.finished_at_ms,
        exit: exit(finished.exit),
        message: finished.message,
        unreadable: finished
            .unreadable
            .into_iter()
            .map(|lost| graph::UnreadableInput {
                task: TaskId::new(lost.stage, lost.index),
                attempt: lost.attempt,
                on: lost.executor_id,
                gone: lost.gone,
            })
            .collect(),
    })
}

impl From<graph::FailureClass> for v1::Outcome {
    fn from(class: graph::FailureClass) -> Self {
        use graph::FailureClass as Class;
        match class {
            Class::Failed => Self::Failed,
            Class::TimedOut => Self::TimedOut,
            Class::OutOfMemory => Self::OutOfMemory,
            Class::ExecutorLost => Self::ExecutorLost,
            Class::LaunchRefused => Self::LaunchRefused,
            Class::InputUnreadable => Self::InputUnreadable,
        }
    }
}

impl From<graph::JobState> for v1::JobState {
    fn from(state: graph::JobState) -> Self {
        match state {
            graph::JobState::Queued => Self::Queued,
            graph::JobState::Running => Self::Running,
            graph::JobState::Successful => Self::Successful,
            graph::JobState::Failed => Self::Failed,
            graph::JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<graph::StageState> for v1::StageState {
    fn from(state: graph::StageState) -> Self {
        match state {
            graph::StageState::Unresolved => Self::Unresolved,
            graph::StageState::Resolved => Self::Resolved,
            graph::StageState::Running => Self::Running,
            graph::StageState::Successful => Self::Successful,
            graph::StageState::Failed => Self::Failed,
            graph::StageState::Cancelled => Self::Cancelled,
            graph::StageState::Skipped => Self::Skipped,
        }
    }
}

impl From<&graph::TaskState> for v1::TaskState {
    fn from(state: &graph::TaskState) -> Self {
        match state {
            graph::TaskState::Pending { .. } => Self::Pending,
            graph::TaskState::Assigned { .. } => Self::Assigned,
            graph::TaskState::Running { .. } => Self::Running,
            graph::TaskState::Successful(_) => Self::Successful,
            graph::TaskState::Failed(_) => Self::Failed,
            graph::TaskState::Cancelled => Self::Cancelled,
        }
    }
}

impl From<graph::Counts> for v1::Counts {
    fn from(counts: graph::Counts) -> Self {
        Self {
            pending: counts.pending,
            assigned: counts.assigned,
            running: counts.running,
            successful: counts.successful,
            failed: counts.failed,
            cancelled: counts.cancelled,
        }
    }
}

/// A reason's name for people and metrics, for instance `stale_fence`.
#[must_use]
pub fn refusal_name(reason: v1::RefusalReason) -> String {
    let name = reason.as_str_name();
    name.strip_prefix("REFUSAL_REASON_").unwrap_or(name).to_ascii_lowercase()
}

/// Every reason that has a name, in the order of their numbers.
pub fn refusal_reasons() -> impl Iterator<Item = v1::RefusalReason> {
    (1..).map_while(|number| v1::RefusalReason::try_from(number).ok())
}
