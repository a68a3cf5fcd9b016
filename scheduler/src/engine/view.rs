//! What users see of a job. Made from the same values whether the job is in memory or was read from the store.

use muster_graph::execution::{
    Effect, ExecutionGraph, ExecutorRef, FailureNote, JobEvent, StageReason, StageState, TaskState,
};
use muster_graph::ids::{JobId, StageIndex, TaskId};
use muster_graph::spec::Gate;
use muster_proto::{convert, storage, v1};

use super::{Engine, Job};

impl Engine {
    /// A job owned here, whole.
    #[must_use]
    pub fn job_view(&self, job: &Job) -> v1::JobView {
        let mut view = graph_view(job.id, &job.head, &job.graph);
        view.owner.clone_from(&self.identity.address);
        if job.graph.is_over() {
            // Its end is on its way to the store; it may not be told of before it is there.
            view.state = v1::JobState::Running.into();
            view.finished_at_ms = 0;
        }
        for ready in job.graph.ready() {
            if let Some(stage) = view.stages.get_mut(ready.stage.0 as usize)
                && stage.reason.is_empty()
            {
                stage.reason = self.nowhere(job.graph.plan(), ready.stage).unwrap_or_default();
            }
        }
        view
    }
}

/// A job from its head alone: for lists, and for jobs that are not planned yet.
#[must_use]
pub fn head_view(id: JobId, head: &storage::JobHead) -> v1::JobView {
    v1::JobView {
        job_id: id.to_string(),
        name: head.name.clone(),
        namespace: head.namespace.clone(),
        state: head.state,
        labels: head.labels.clone(),
        submitted_at_ms: head.submitted_at_ms,
        started_at_ms: head.started_at_ms,
        finished_at_ms: head.finished_at_ms,
        tasks: head.tasks,
        stages: Vec::new(),
        failures: Vec::new(),
        cancel_requested: head.cancel_requested,
        owner: String::new(),
        message: head.message.clone(),
    }
}

/// A job, whole.
#[must_use]
pub(crate) fn graph_view(id: JobId, head: &storage::JobHead, graph: &ExecutionGraph) -> v1::JobView {
    let record = graph.job();
    let plan = graph.plan();
    let stages = plan
        .stages
        .iter()
        .zip(0u32..)
        .filter_map(|(described, place)| {
            let index = StageIndex(place);
            let stage = graph.stage(index)?;
            Some(v1::StageView {
                stage: place,
                name: described.name.clone(),
                gate: described.gate.map_or(v1::Gate::Unspecified, v1::Gate::from).into(),
                state: v1::StageState::from(stage.state).into(),
                tasks: Some(graph.stage_counts(index).into()),
                reason: reason(graph, index),
                needs: described
                    .upstreams
                    .iter()
                    .map(|upstream| plan.stages[upstream.stage.0 as usize].name.clone())
                    .collect(),
                started_at_ms: stage.started_at,
                finished_at_ms: stage.finished_at,
            })
        })
        .collect();
    v1::JobView {
        state: v1::JobState::from(record.state).into(),
        started_at_ms: record.started_at,
        finished_at_ms: record.finished_at,
        tasks: Some(graph.counts().into()),
        stages,
        failures: record.failures.iter().map(|note| failure_view(graph, note)).collect(),
        cancel_requested: record.cancel.is_some(),
        message: message(graph),
        ..head_view(id, head)
    }
}

/// A failed attempt.
#[must_use]
pub fn failure_view(graph: &ExecutionGraph, note: &FailureNote) -> v1::Failure {
    v1::Failure {
        stage: graph.plan().stages[note.task.stage.0 as usize].name.clone(),
        index: note.task.index.0,
        attempt: note.attempt,
        outcome: v1::Outcome::from(note.class).into(),
        exit: convert::to_exit(note.exit),
        message: note.message.clone(),
        executor: executor_name(graph, note.on),
        at_ms: note.at,
        r#final: note.is_final,
    }
}

pub(crate) fn executor_name(graph: &ExecutionGraph, on: ExecutorRef) -> String {
    graph.executor(on).map(|key| key.id.clone()).unwrap_or_default()
}

/// Names in one reason: the end of a nested job waits for everything inside.
const NAMES_SHOWN_MAX: usize = 10;

fn is_begin(graph: &ExecutionGraph, stage: StageIndex) -> bool {
    graph.plan().stages.get(stage.0 as usize).is_some_and(|plan| plan.gate == Some(Gate::Begin))
}

/// The names of the stages and nested jobs that a stage waits for. In the place of a begin there is what that waits for: as deep
/// as jobs stand in jobs.
fn awaited<'a>(graph: &'a ExecutionGraph, index: StageIndex, names: &mut Vec<&'a str>) {
    for upstream in &graph.plan().stages[index.0 as usize].upstreams {
        if graph.stage(upstream.stage).is_none_or(|up| up.finished_at > 0) {
            continue;
        }
        if is_begin(graph, upstream.stage) {
            awaited(graph, upstream.stage, names);
        } else {
            names.push(graph.plan().stages[upstream.stage.0 as usize].name.as_str());
        }
    }
}

/// Why a stage is where it is, in the user's terms.
pub(super) fn reason(graph: &ExecutionGraph, index: StageIndex) -> String {
    let name = |stage: StageIndex| graph.plan().stages[stage.0 as usize].name.as_str();
    let Some(stage) = graph.stage(index) else { return String::new() };
    match stage.reason {
        StageReason::None if stage.state == StageState::Unresolved => {
            let mut waits = Vec::new();
            awaited(graph, index, &mut waits);
            let more = waits.len().saturating_sub(NAMES_SHOWN_MAX);
            waits.truncate(NAMES_SHOWN_MAX);
            match (waits.join(", "), more) {
                (names, _) if names.is_empty() => String::new(),
                (names, 0) => format!("waits for {names}"),
                (names, more) => format!("waits for {names} and {more} more"),
            }
        }
        StageReason::None => String::new(),
        // Of a nested job that did not begin, what kept it from that says more.
        StageReason::UpstreamNotSuccessful(upstream) if is_begin(graph, upstream) => reason(graph, upstream),
        StageReason::UpstreamNotSuccessful(upstream) => format!("stage {} was not successful", name(upstream)),
        StageReason::NothingFailed => "nothing failed".to_owned(),
        StageReason::TaskFailed(task) => format!("task {} failed", task.index.0),
        StageReason::CancelRequested => "cancelled".to_owned(),
        StageReason::JobTimedOut => "the job's time was up".to_owned(),
    }
}

/// Why a job failed or was cancelled, in one line.
pub(crate) fn message(graph: &ExecutionGraph) -> String {
    let record = graph.job();
    if record.timed_out {
        return "the job's time was up".to_owned();
    }
    if let Some(reason) = &record.cancel {
        return if reason.is_empty() { "cancelled".to_owned() } else { format!("cancelled: {reason}") };
    }
    match record.failures.iter().find(|note| note.is_final) {
        Some(note) => {
            format!("{}/{}: {}", graph.plan().stages[note.task.stage.0 as usize].name, note.task.index.0, note.message)
        }
        None => String::new(),
    }
}

/// One task.
#[must_use]
pub(crate) fn task_view(graph: &ExecutionGraph, id: TaskId) -> Option<v1::TaskView> {
    let task = graph.task(id)?;
    let mut view = v1::TaskView {
        stage: graph.plan().stages[id.stage.0 as usize].name.clone(),
        index: id.index.0,
        state: v1::TaskState::from(&task.state).into(),
        attempt: task.attempt,
        ..Default::default()
    };
    match task.state {
        TaskState::Pending { .. } | TaskState::Cancelled => {}
        TaskState::Assigned { on, .. } => view.executor = executor_name(graph, on),
        TaskState::Running { on, started_at } => {
            view.executor = executor_name(graph, on);
            view.started_at_ms = started_at;
        }
        TaskState::Successful(accepted) => {
            view.executor = executor_name(graph, accepted.on);
            view.started_at_ms = accepted.started_at;
            view.finished_at_ms = accepted.started_at + u64::from(accepted.ran_ms);
            view.outcome = v1::Outcome::Succeeded.into();
            view.exit = Some(v1::Exit { how: Some(v1::exit::How::Code(0)) });
            view.output = Some(accepted.output.into());
        }
        TaskState::Failed(ended) => {
            view.executor = executor_name(graph, ended.on);
            view.started_at_ms = ended.started_at;
            view.finished_at_ms = ended.started_at + u64::from(ended.ran_ms);
            view.outcome = v1::Outcome::from(ended.class).into();
            view.exit = convert::to_exit(ended.exit);
        }
    }
    if let Some(note) = graph.job().failures.iter().rev().find(|note| note.task == id) {
        view.message.clone_from(&note.message);
    }
    Some(view)
}

/// What of a commit's effects belongs into the job's log.
pub(crate) fn log_of(effects: &[Effect]) -> Vec<JobEvent> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Emit(event) => Some(event.clone()),
            Effect::Launch { .. } | Effect::CancelAttempt { .. } | Effect::Ignored { .. } => None,
        })
        .collect()
}
