//! What users see of a job. Made from the same values whether the job is in memory or was read from the store.

use std::ops::Range;

use muster_graph::execution::{
    Counts, Effect, ExecutionGraph, ExecutorRef, FailureNote, JobEvent, StageReason, StageState, TaskState,
};
use muster_graph::ids::{JobId, StageIndex, TaskId};
use muster_graph::plan::{Edge, Plan};
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
        made_of: head.made_of.clone(),
        group: head.group.clone(),
    }
}

/// A job, whole.
#[must_use]
pub(crate) fn graph_view(id: JobId, head: &storage::JobHead, graph: &ExecutionGraph) -> v1::JobView {
    let record = graph.job();
    let plan = graph.plan();
    let read = read_stages(plan);
    let mut around: Vec<Inside> = Vec::new();
    let stages = plan
        .stages
        .iter()
        .zip(0u32..)
        .filter_map(|(described, place)| {
            let index = StageIndex(place);
            let stage = graph.stage(index)?;
            let mut own = Inside { counts: graph.stage_counts(index), started_at: stage.started_at };
            match described.gate {
                None => {}
                Some(Gate::Begin) => around.push(Inside::default()),
                Some(Gate::End) => own = around.pop().unwrap_or_default(),
            }
            if let (None | Some(Gate::End), Some(parent)) = (described.gate, around.last_mut()) {
                parent.add(own.counts, own.started_at);
            }
            Some(v1::StageView {
                stage: place,
                name: described.name.clone(),
                gate: described.gate.map_or(v1::Gate::Unspecified, v1::Gate::from).into(),
                state: v1::StageState::from(stage.state).into(),
                tasks: Some(own.counts.into()),
                output_read: read[place as usize],
                reason: reason(graph, index),
                needs: described
                    .upstreams
                    .iter()
                    .map(|upstream| plan.stages[upstream.stage.0 as usize].name.clone())
                    .collect(),
                started_at_ms: own.started_at,
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

/// Of each stage, whether a stage reads its output. Those of the others are the job's results.
pub(crate) fn read_stages(plan: &Plan) -> Vec<bool> {
    let mut read = vec![false; plan.stages.len()];
    for upstream in plan.stages.iter().flat_map(|stage| &stage.upstreams) {
        if matches!(upstream.edge, Edge::All | Edge::Each | Edge::Shuffle) {
            read[upstream.stage.0 as usize] = true;
        }
    }
    read
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

pub(crate) fn is_begin(graph: &ExecutionGraph, stage: StageIndex) -> bool {
    graph.plan().stages.get(stage.0 as usize).is_some_and(|plan| plan.gate == Some(Gate::Begin))
}

/// The places of a nested job's borders and of all that is in it, by its end; of a stage, its own.
pub(crate) fn within(plan: &Plan, stage: StageIndex) -> Range<u32> {
    let (mut first, mut open) = (stage.0, 0u32);
    loop {
        match plan.stages[first as usize].gate {
            Some(Gate::End) => open += 1,
            Some(Gate::Begin) => open = open.saturating_sub(1),
            None => {}
        }
        if open == 0 || first == 0 {
            return first..stage.0 + 1;
        }
        first -= 1;
    }
}

/// The tasks of a stage, or of all stages in a nested job.
pub(crate) fn counts_within(graph: &ExecutionGraph, stage: StageIndex) -> Counts {
    within(graph.plan(), stage).map(|stage| graph.stage_counts(StageIndex(stage))).fold(Counts::default(), sum)
}

fn sum(mut counts: Counts, more: Counts) -> Counts {
    for (number, more) in [
        (&mut counts.pending, more.pending),
        (&mut counts.assigned, more.assigned),
        (&mut counts.running, more.running),
        (&mut counts.successful, more.successful),
        (&mut counts.failed, more.failed),
        (&mut counts.cancelled, more.cancelled),
    ] {
        *number = number.saturating_add(more);
    }
    counts
}

/// What a nested job adds up to: the tasks in it, and when the first of them began. Filled from its begin to its end.
#[derive(Default, Clone, Copy)]
struct Inside {
    counts: Counts,
    started_at: u64,
}

impl Inside {
    fn add(&mut self, counts: Counts, started_at: u64) {
        self.counts = sum(self.counts, counts);
        if started_at > 0 && (self.started_at == 0 || started_at < self.started_at) {
            self.started_at = started_at;
        }
    }
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
