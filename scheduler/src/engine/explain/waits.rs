//! What a task waits for inside its own job, by the graph's word: other stages, single tasks of them, the end of a
//! backoff; and why there is nothing to wait for any more.

use std::collections::BTreeMap;

use muster_graph::execution::{
    Accepted, Ended, ExecutionGraph, Exit, FailureClass, StageReason, StageRecord, StageState, Task, TaskState,
};
use muster_graph::ids::{Millis, StageIndex, TaskId};
use muster_graph::plan::StagePlan;
use muster_graph::spec::{Gate, When};
use muster_proto::v1;
use v1::ReasonKind as Kind;

use super::words::{LISTED_MAX, count_of, in_a_line, listed, reason, time};
use crate::engine::view;

/// Ends of backoffs looked at for one answer.
const BACKOFFS_LOOKED_AT: usize = 16_384;
/// A budget of so many is without end.
const WITHOUT_END: u8 = u8::MAX;

fn plan(graph: &ExecutionGraph, stage: StageIndex) -> &StagePlan {
    &graph.plan().stages[stage.0 as usize]
}

fn name(graph: &ExecutionGraph, stage: StageIndex) -> &str {
    &plan(graph, stage).name
}

fn retry(graph: &ExecutionGraph) -> String {
    let id = graph.job_id();
    if graph.is_over() {
        format!("`muster retry {id}` runs it, together with what failed")
    } else {
        format!("once the job is over, `muster retry {id}` runs it, together with what failed")
    }
}

/// The stages and nested jobs that a stage waits for as a whole. In the place of the begin of the job that it is in there is what
/// that waits for: as deep as jobs stand in jobs.
fn awaited_stages(graph: &ExecutionGraph, stage: StageIndex) -> Vec<StageIndex> {
    let above = graph.awaited_stages(stage);
    above
        .flat_map(|above| if view::is_begin(graph, above) { awaited_stages(graph, above) } else { vec![above] })
        .collect()
}

/// The stage's upstreams as a whole do not let its tasks run.
pub(super) fn upstream(graph: &ExecutionGraph, stage: StageIndex, tasks: u32) -> v1::Reason {
    let awaited: Vec<(StageIndex, &StageRecord)> =
        awaited_stages(graph, stage).into_iter().filter_map(|above| Some((above, graph.stage(above)?))).collect();
    if awaited.is_empty() {
        return reason(Kind::Starting, tasks, "nothing is in the way: its stage is about to begin");
    }
    // A nested job is over when everything in it is, whatever becomes of it.
    let when = if plan(graph, stage).gate == Some(Gate::End) { When::Always } else { plan(graph, stage).when };
    let above = |stages: &[StageIndex]| listed(stages.iter().map(|above| name(graph, *above)));
    if when == When::OnSuccess
        && let Some((failing, why)) = awaited.iter().find_map(|(above, record)| Some((*above, fails(record)?)))
    {
        let text = format!("will not run: stage {} {why}", name(graph, failing));
        let remedies = vec![retry(graph)];
        return v1::Reason { stages: above(&[failing]), remedies, ..reason(Kind::Never, tasks, text) };
    }
    let what = if when == When::OnSuccess { "waits for" } else { "waits for the end of" };
    let text = format!("{what} {}", in_a_line(awaited.iter().map(|(above, _)| progress(graph, *above, when))));
    let evidence = awaited.iter().take(LISTED_MAX).map(|(above, record)| standing(graph, *above, record)).collect();
    let stages: Vec<StageIndex> = awaited.iter().take(LISTED_MAX).map(|(above, _)| *above).collect();
    v1::Reason { stages: above(&stages), evidence, ..reason(Kind::Upstream, tasks, text) }
}

/// Why a stage that is waited for will not be successful.
fn fails(record: &StageRecord) -> Option<String> {
    match record.reason {
        StageReason::TaskFailed(task) => Some(format!("fails, for its task {} has failed", task.index.0)),
        StageReason::NothingFailed if record.state == StageState::Skipped => Some("was skipped".to_owned()),
        _ => None,
    }
}

/// `map (3 of 9 tasks done)`.
fn progress(graph: &ExecutionGraph, stage: StageIndex, when: When) -> String {
    let counts = view::counts_within(graph, stage);
    let done = if when == When::OnSuccess { counts.successful } else { counts.total() - counts.live() };
    format!("{} ({done} of {} done)", name(graph, stage), count_of(counts.total(), "task", "tasks"))
}

fn standing(graph: &ExecutionGraph, stage: StageIndex, record: &StageRecord) -> String {
    let counts = view::counts_within(graph, stage);
    let waits = match awaited_stages(graph, stage).first() {
        Some(&above) if record.state == StageState::Unresolved => {
            format!(", and itself waits for {}", name(graph, above))
        }
        _ => String::new(),
    };
    let (pending, held) = (counts.pending, counts.held());
    format!(
        "{}: {pending} pending, {held} assigned or running, {} successful{waits}; see `muster explain {}/{}`",
        name(graph, stage),
        counts.successful,
        graph.job_id(),
        name(graph, stage)
    )
}

/// Pending tasks of a stage whose upstreams let it run, and that may not be assigned all the same: they back off, or wait for
/// single tasks.
pub(super) fn not_ready(graph: &ExecutionGraph, stage: StageIndex, tasks: u32, now: Millis) -> Vec<v1::Reason> {
    let task_by_task = graph.waits_task_by_task(stage);
    if graph.backoffs_noted() > BACKOFFS_LOOKED_AT && task_by_task {
        let text = "each backs off after a failed attempt, or waits for the same task of a stage before it";
        return vec![reason(Kind::Backoff, tasks, text)];
    }
    let looked_at = graph.backing_off().take(BACKOFFS_LOOKED_AT).filter(|(task, _)| task.stage == stage);
    let backing_off: BTreeMap<u32, Millis> = looked_at.map(|(task, until)| (task.index.0, until)).collect();
    let mut reasons = Vec::new();
    let some = u32::try_from(backing_off.len()).unwrap_or(u32::MAX).min(tasks);
    let backs_off = if task_by_task { some } else { tasks };
    if backs_off > 0 {
        reasons.push(backoffs(graph, stage, backs_off, &backing_off, now));
    }
    if tasks > backs_off {
        reasons.push(inputs(graph, stage, tasks - backs_off));
    }
    reasons
}

fn backoffs(
    graph: &ExecutionGraph,
    stage: StageIndex,
    tasks: u32,
    ends: &BTreeMap<u32, Millis>,
    now: Millis,
) -> v1::Reason {
    let Some((index, until)) = ends.iter().min_by_key(|(index, until)| (**until, **index)) else {
        return reason(Kind::Starting, tasks, "the end of a backoff has come");
    };
    let text = format!("backs off after a failed attempt; task {index} goes on in {}", time(until.saturating_sub(now)));
    let task = graph.task(TaskId::new(stage.0, *index));
    let evidence = task.map(|task| spent(graph, stage, &task)).unwrap_or_default();
    let evidence = evidence.into_iter().map(|line| format!("task {index} {line}")).collect();
    v1::Reason { until_ms: *until, index: Some(*index), evidence, ..reason(Kind::Backoff, tasks, text) }
}

/// One task backs off.
pub(super) fn backoff(graph: &ExecutionGraph, id: TaskId, task: &Task, until: Millis, now: Millis) -> v1::Reason {
    let next = task.attempt.saturating_add(1);
    let text =
        format!("backs off after a failed attempt; attempt {next} may follow in {}", time(until.saturating_sub(now)));
    let evidence = spent(graph, id.stage, task);
    v1::Reason { until_ms: until, evidence, ..reason(Kind::Backoff, 1, text) }
}

/// How a task's attempts failed, and how often they may.
fn spent(graph: &ExecutionGraph, stage: StageIndex, task: &Task) -> Vec<String> {
    let classes = FailureClass::ALL.into_iter().filter(|class| task.spent[*class as usize] > 0);
    let line = |class: FailureClass| {
        let (spent, budget) = (u32::from(task.spent[class as usize]), graph.retry_budget(stage, class));
        let times = count_of(spent, "time", "times");
        let what = in_past(class);
        match budget {
            WITHOUT_END => format!("{what} {times}, and may as often as it takes"),
            _ => format!("{what} {times}; {} allowed", count_of(u32::from(budget), "is", "are")),
        }
    };
    classes.map(line).collect()
}

fn in_past(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Failed => "failed",
        FailureClass::TimedOut => "timed out",
        FailureClass::OutOfMemory => "ran out of memory",
        FailureClass::ExecutorLost => "was lost with its executor",
        FailureClass::LaunchRefused => "was refused by an executor",
        FailureClass::InputUnreadable => "could not read its input",
    }
}

fn inputs(graph: &ExecutionGraph, stage: StageIndex, tasks: u32) -> v1::Reason {
    let each = plan(graph, stage).upstreams.iter().filter(|upstream| upstream.edge == muster_graph::plan::Edge::Each);
    let above: Vec<StageIndex> = each
        .map(|upstream| upstream.stage)
        .filter(|above| graph.stage_counts(*above).successful < plan(graph, *above).tasks)
        .collect();
    let parts = above.iter().map(|above| progress(graph, *above, When::OnSuccess));
    let text = format!("each waits for the same task of {}", in_a_line(parts));
    let stages = listed(above.iter().map(|above| name(graph, *above)));
    v1::Reason { stages, ..reason(Kind::Input, tasks, text) }
}

/// One task waits for single tasks of other stages.
pub(super) fn input(graph: &ExecutionGraph, id: TaskId) -> v1::Reason {
    let awaited: Vec<TaskId> = graph.awaited_tasks(id).collect();
    let stages = || listed(awaited.iter().map(|above| name(graph, above.stage)));
    let task_name = |above: &TaskId| format!("{}/{}", name(graph, above.stage), above.index.0);
    let is_dead = |above: &&TaskId| {
        let state = graph.task(**above).map(|task| task.state);
        matches!(state, Some(TaskState::Failed(_) | TaskState::Cancelled))
    };
    if let Some(dead) = awaited.iter().find(is_dead) {
        let text = format!("will not run: its input {} has failed", task_name(dead));
        return v1::Reason { stages: stages(), remedies: vec![retry(graph)], ..reason(Kind::Never, 1, text) };
    }
    let text = format!("waits for its input {}", in_a_line(awaited.iter().map(task_name)));
    let see = |above: &TaskId| {
        let state = graph.task(*above).map_or("unknown", |task| in_words(&task.state));
        format!("{} is {state}; see `muster explain {}/{}`", task_name(above), graph.job_id(), task_name(above))
    };
    let evidence = awaited.iter().take(LISTED_MAX).map(see).collect();
    v1::Reason { stages: stages(), evidence, ..reason(Kind::Input, 1, text) }
}

fn in_words(state: &TaskState) -> &'static str {
    match state {
        TaskState::Pending { .. } => "pending",
        TaskState::Assigned { .. } => "assigned",
        TaskState::Running { .. } => "running",
        TaskState::Successful(_) => "successful",
        TaskState::Failed(_) => "failed",
        TaskState::Cancelled => "cancelled",
    }
}

/// Nothing of the stage will run.
pub(super) fn stage_over(graph: &ExecutionGraph, stage: StageIndex) -> v1::Reason {
    let state = graph.stage(stage).map(|record| record.state);
    let why = view::reason(graph, stage);
    let said = |what: &str| if why.is_empty() || why == what { what.to_owned() } else { format!("{what}: {why}") };
    let (kind, text) = match state {
        Some(StageState::Failed) => (Kind::Failed, said("failed")),
        Some(StageState::Cancelled) => (Kind::Cancelled, said("cancelled")),
        Some(StageState::Skipped) => (Kind::Skipped, said("skipped")),
        _ => (Kind::Successful, "successful".to_owned()),
    };
    let mends = !matches!(kind, Kind::Successful) && why != "nothing failed";
    let remedies = if mends { vec![retry(graph)] } else { Vec::new() };
    v1::Reason { remedies, ..reason(kind, 0, text) }
}

pub(super) fn successful(graph: &ExecutionGraph, accepted: &Accepted) -> v1::Reason {
    let executor = view::executor_name(graph, accepted.on);
    let text = format!("was successful on {executor}, in {}", time(u64::from(accepted.ran_ms)));
    v1::Reason { executors: vec![executor], ..reason(Kind::Successful, 1, text) }
}

pub(super) fn failed(graph: &ExecutionGraph, id: TaskId, task: &Task, ended: &Ended) -> v1::Reason {
    let executor = view::executor_name(graph, ended.on);
    let how = match ended.exit {
        Exit::None => String::new(),
        Exit::Code(code) => format!(", exit code {code}"),
        Exit::Signal(signal) => format!(", signal {signal}"),
    };
    let text = format!("attempt {} {} on {executor}{how}, and no other follows", task.attempt, in_past(ended.class));
    let evidence = spent(graph, id.stage, task);
    v1::Reason { executors: vec![executor], evidence, remedies: vec![retry(graph)], ..reason(Kind::Failed, 1, text) }
}

pub(super) fn cancelled(graph: &ExecutionGraph, stage: StageIndex) -> v1::Reason {
    let why = view::reason(graph, stage);
    let text = if why.is_empty() { "will not run: cancelled".to_owned() } else { format!("will not run: {why}") };
    let remedies = if why == "nothing failed" { Vec::new() } else { vec![retry(graph)] };
    v1::Reason { remedies, ..reason(Kind::Cancelled, 1, text) }
}
