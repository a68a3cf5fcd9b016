//! What is printed, in shapes of its own: the wire may change under them, JSON that people have programmed against may
//! not. Names are snake_case, times RFC 3339 in UTC, what is not set is null, and no field is ever left out.

use std::collections::BTreeMap;

use muster_client::v1;
use serde::Serialize;

use super::definition::Use;
use super::folding::Folding;
use super::group::path_text;
use super::time::rfc3339;

/// Empty on the wire is null in JSON.
pub(super) fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// How many tasks are in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) pending: u32,
    pub(crate) assigned: u32,
    pub(crate) running: u32,
    pub(crate) successful: u32,
    pub(crate) failed: u32,
    pub(crate) cancelled: u32,
    pub(crate) total: u32,
}

impl From<Option<v1::Counts>> for Counts {
    fn from(counts: Option<v1::Counts>) -> Self {
        let v1::Counts { pending, assigned, running, successful, failed, cancelled } = counts.unwrap_or_default();
        let parts = [pending, assigned, running, successful, failed, cancelled];
        let total = parts.into_iter().fold(0, u32::saturating_add);
        Self { pending, assigned, running, successful, failed, cancelled, total }
    }
}

impl Counts {
    /// Tasks that will not run again by themselves.
    pub(crate) fn over(self) -> u32 {
        self.successful.saturating_add(self.failed).saturating_add(self.cancelled)
    }
}

/// A job, as lists show it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// The path of the group that it is in; the root is `/`.
    pub(crate) group: String,
    pub(crate) state: &'static str,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) submitted_at: Option<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: Option<String>,
    pub(crate) cancel_requested: bool,
    pub(crate) owner: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) counts: Counts,
    /// The revisions of definitions that it was made of, its own first.
    pub(crate) made_of: Vec<Use>,
    #[serde(skip)]
    pub(crate) submitted_ms: u64,
    #[serde(skip)]
    pub(crate) started_ms: u64,
    #[serde(skip)]
    pub(crate) finished_ms: u64,
}

impl From<v1::JobView> for Job {
    fn from(view: v1::JobView) -> Self {
        Self {
            state: job_state(view.state()),
            counts: view.tasks.into(),
            id: view.job_id,
            name: view.name,
            namespace: view.namespace,
            group: path_text(&view.group),
            labels: view.labels,
            submitted_at: rfc3339(view.submitted_at_ms),
            started_at: rfc3339(view.started_at_ms),
            finished_at: rfc3339(view.finished_at_ms),
            cancel_requested: view.cancel_requested,
            owner: optional(view.owner),
            message: optional(view.message),
            made_of: view.made_of.into_iter().map(Use::from).collect(),
            submitted_ms: view.submitted_at_ms,
            started_ms: view.started_at_ms,
            finished_ms: view.finished_at_ms,
        }
    }
}

/// A job at length.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct JobAtLength {
    #[serde(flatten)]
    pub(crate) job: Job,
    pub(crate) stages: Vec<Stage>,
    pub(crate) failures: Vec<Failure>,
    /// Null unless tasks were asked for.
    pub(crate) tasks: Option<Vec<Task>>,
    /// Whether there are more tasks than are listed.
    pub(crate) more_tasks: bool,
    /// Which nested jobs are shown with what is in them. Where programs read it, all are.
    #[serde(skip)]
    pub(crate) folding: Folding,
}

impl From<v1::JobView> for JobAtLength {
    fn from(mut view: v1::JobView) -> Self {
        let job_id = view.job_id.clone();
        let stages = std::mem::take(&mut view.stages).into_iter().filter(|stage| stage.gate() != v1::Gate::Begin);
        let stages = stages.map(|stage| Stage::new(&job_id, stage)).collect();
        let failures = std::mem::take(&mut view.failures).into_iter().map(Failure::from).collect();
        Self { job: view.into(), stages, failures, tasks: None, more_tasks: false, folding: Folding::default() }
    }
}

/// A stage of a job.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// It is a job: its counts and times are those of the stages in it, which come before it.
    pub(crate) is_job: bool,
    pub(crate) state: &'static str,
    pub(crate) reason: Option<String>,
    pub(crate) needs: Vec<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: Option<String>,
    pub(crate) counts: Counts,
    #[serde(skip)]
    pub(crate) job: String,
    #[serde(skip)]
    pub(crate) started_ms: u64,
    #[serde(skip)]
    pub(crate) finished_ms: u64,
}

/// The state of a stage. A nested job waits for what is in it, and so runs once something in it has begun.
pub(crate) fn state_of(view: &v1::StageView) -> &'static str {
    match stage_state(view.state()) {
        "unresolved" if view.gate() == v1::Gate::End && view.started_at_ms > 0 => "running",
        state => state,
    }
}

impl Stage {
    pub(crate) fn new(job: &str, view: v1::StageView) -> Self {
        Self {
            state: state_of(&view),
            is_job: view.gate() == v1::Gate::End,
            name: view.name,
            reason: optional(view.reason),
            needs: view.needs,
            started_at: rfc3339(view.started_at_ms),
            finished_at: rfc3339(view.finished_at_ms),
            counts: view.tasks.into(),
            job: job.to_owned(),
            started_ms: view.started_at_ms,
            finished_ms: view.finished_at_ms,
        }
    }
}

/// How a process ended: one of the two is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Exited {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Exited {
    fn of(exit: Option<v1::Exit>) -> Option<Self> {
        match exit?.how? {
            v1::exit::How::Code(code) => Some(Self { code: Some(code), signal: None }),
            v1::exit::How::Signal(signal) => Some(Self { code: None, signal: Some(signal) }),
        }
    }

    /// For people.
    pub(crate) fn text(self) -> String {
        match (self.code, self.signal) {
            (_, Some(signal)) => format!("signal {signal}"),
            (Some(code), None) => format!("exit {code}"),
            (None, None) => "-".to_owned(),
        }
    }
}

/// An attempt that did not succeed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    pub(crate) stage: String,
    pub(crate) index: u32,
    pub(crate) attempt: u32,
    pub(crate) outcome: Option<&'static str>,
    pub(crate) exit: Option<Exited>,
    pub(crate) message: Option<String>,
    pub(crate) executor: Option<String>,
    pub(crate) at: Option<String>,
    pub(crate) r#final: bool,
}

impl From<v1::Failure> for Failure {
    fn from(failure: v1::Failure) -> Self {
        Self {
            outcome: outcome(failure.outcome()),
            stage: failure.stage,
            index: failure.index,
            attempt: failure.attempt,
            exit: Exited::of(failure.exit),
            message: optional(failure.message),
            executor: optional(failure.executor),
            at: rfc3339(failure.at_ms),
            r#final: failure.r#final,
        }
    }
}

/// What an attempt left.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct OutputSize {
    pub(crate) bytes: u64,
    pub(crate) files: u32,
    /// 16 hexadecimal digits: a 64-bit number does not survive JSON readers that know only floating point.
    pub(crate) checksum: String,
}

impl From<v1::Output> for OutputSize {
    fn from(output: v1::Output) -> Self {
        Self { bytes: output.bytes, files: output.files, checksum: format!("{:016x}", output.checksum) }
    }
}

/// A task.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Task {
    pub(crate) job: String,
    pub(crate) stage: String,
    pub(crate) index: u32,
    pub(crate) state: &'static str,
    pub(crate) attempt: Option<u32>,
    pub(crate) executor: Option<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: Option<String>,
    pub(crate) outcome: Option<&'static str>,
    pub(crate) exit: Option<Exited>,
    pub(crate) message: Option<String>,
    pub(crate) output: Option<OutputSize>,
    #[serde(skip)]
    pub(crate) started_ms: u64,
    #[serde(skip)]
    pub(crate) finished_ms: u64,
}

impl Task {
    pub(crate) fn new(job: &str, view: v1::TaskView) -> Self {
        Self {
            state: task_state(view.state()),
            outcome: outcome(view.outcome()),
            job: job.to_owned(),
            stage: view.stage,
            index: view.index,
            attempt: (view.attempt > 0).then_some(view.attempt),
            executor: optional(view.executor),
            started_at: rfc3339(view.started_at_ms),
            finished_at: rfc3339(view.finished_at_ms),
            exit: Exited::of(view.exit),
            message: optional(view.message),
            output: view.output.map(OutputSize::from),
            started_ms: view.started_at_ms,
            finished_ms: view.finished_at_ms,
        }
    }
}

/// A task's output.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TaskOutput {
    pub(crate) job: String,
    pub(crate) stage: String,
    pub(crate) index: u32,
    pub(crate) attempt: u32,
    pub(crate) executor: Option<String>,
    pub(crate) bytes: u64,
    pub(crate) files: u32,
    pub(crate) checksum: String,
}

impl TaskOutput {
    pub(crate) fn new(job: &str, view: v1::OutputView) -> Self {
        let OutputSize { bytes, files, checksum } = view.output.unwrap_or_default().into();
        Self {
            job: job.to_owned(),
            stage: view.stage,
            index: view.index,
            attempt: view.attempt,
            executor: optional(view.executor),
            bytes,
            files,
            checksum,
        }
    }
}

/// A part of a cluster that has started and goes on until it is stopped.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Started {
    /// up, scheduler or executor.
    pub(crate) what: &'static str,
    pub(crate) id: Option<String>,
    pub(crate) address: String,
    pub(crate) data_dir: Option<String>,
}

/// What a download brought.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Downloaded {
    pub(crate) job: String,
    pub(crate) stage: String,
    pub(crate) index: u32,
    pub(crate) directory: String,
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

pub(crate) fn job_state(state: v1::JobState) -> &'static str {
    match state {
        v1::JobState::Unspecified => "unknown",
        v1::JobState::Queued => "queued",
        v1::JobState::Running => "running",
        v1::JobState::Successful => "successful",
        v1::JobState::Failed => "failed",
        v1::JobState::Cancelled => "cancelled",
    }
}

pub(crate) fn stage_state(state: v1::StageState) -> &'static str {
    match state {
        v1::StageState::Unspecified => "unknown",
        v1::StageState::Unresolved => "unresolved",
        v1::StageState::Resolved => "resolved",
        v1::StageState::Running => "running",
        v1::StageState::Successful => "successful",
        v1::StageState::Failed => "failed",
        v1::StageState::Cancelled => "cancelled",
        v1::StageState::Skipped => "skipped",
    }
}

pub(crate) fn task_state(state: v1::TaskState) -> &'static str {
    match state {
        v1::TaskState::Unspecified => "unknown",
        v1::TaskState::Pending => "pending",
        v1::TaskState::Assigned => "assigned",
        v1::TaskState::Running => "running",
        v1::TaskState::Successful => "successful",
        v1::TaskState::Failed => "failed",
        v1::TaskState::Cancelled => "cancelled",
    }
}

pub(crate) fn outcome(outcome: v1::Outcome) -> Option<&'static str> {
    match outcome {
        v1::Outcome::Unspecified => None,
        v1::Outcome::Succeeded => Some("succeeded"),
        v1::Outcome::Failed => Some("failed"),
        v1::Outcome::TimedOut => Some("timed_out"),
        v1::Outcome::OutOfMemory => Some("out_of_memory"),
        v1::Outcome::ExecutorLost => Some("executor_lost"),
        v1::Outcome::LaunchRefused => Some("launch_refused"),
        v1::Outcome::InputUnreadable => Some("input_unreadable"),
        v1::Outcome::Cancelled => Some("cancelled"),
        v1::Outcome::GivenBack => Some("given_back"),
    }
}
