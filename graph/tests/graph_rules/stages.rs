//! Conditions, skipping and ending of stages.

use std::sync::Arc;

use muster_graph::execution::{Effect, Event, ExecutionGraph, JobState, StageReason, StageState, TaskPhase, Why};
use muster_graph::ids::{JobId, StageIndex};
use muster_graph::plan::{Edge, StagePlan};
use muster_graph::spec::When;

use crate::plans::{self, reading, stage};
use crate::script::{FAILED, Job, ignored, job_moved, launch, moved, on, output};

fn when(mut stage: StagePlan, when: When) -> StagePlan {
    stage.when = when;
    stage
}

#[test]
fn a_single_task_goes_from_submit_to_success() {
    let mut job = Job { graph: ExecutionGraph::new(plans::shared([stage(1)]), JobId(1)), at: 1_000 };
    assert_eq!(job.apply(Event::Submitted), [moved(0, StageState::Resolved)]);
    assert_eq!(job.ready(), [(0, 1)]);
    assert_eq!(
        job.assign(0, on("a"), 1),
        [job_moved(JobState::Running), moved(0, StageState::Running), launch(0, 0, 1, 0)]
    );
    assert_eq!(job.start(0, 0, 1, on("a")), []);
    assert_eq!(
        job.end(0, 0, 1, on("a"), output(1)),
        [moved(0, StageState::Successful), job_moved(JobState::Successful)]
    );
    assert_eq!(job.apply(Event::Submitted), ignored(Why::Duplicate));
}

#[test]
fn a_shuffle_waits_for_the_whole_stage_and_an_each_edge_for_its_task_only() {
    let whole = reading(stage(2), Edge::Shuffle, 0);
    let each = reading(stage(2), Edge::Each, 0);
    let mut job = Job::of([stage(2), whole, each]);
    assert_eq!(job.state(2), StageState::Resolved);
    job.assign(0, on("a"), 2);
    assert_eq!(job.ready(), []);
    assert_eq!(job.end(0, 1, 1, on("a"), output(1)), []);
    assert_eq!(job.ready(), [(2, 1)]);
    assert_eq!(job.assign(2, on("a"), 1), [moved(2, StageState::Running), launch(2, 1, 1, 0)]);
    assert_eq!(
        job.end(0, 0, 1, on("a"), output(1)),
        [moved(0, StageState::Successful), moved(1, StageState::Resolved)]
    );
    assert_eq!(job.ready(), [(1, 2), (2, 1)]);
}

#[test]
fn a_failed_stage_skips_what_needs_it_and_starts_what_waits_for_failure() {
    let mut job = Job::of([
        stage(1),
        reading(stage(2), Edge::All, 0),
        when(reading(stage(1), Edge::After, 1), When::OnFailure),
        when(reading(stage(1), Edge::After, 2), When::Always),
    ]);
    let note =
        job.note(crate::script::task(0, 0), 1, 0, muster_graph::execution::FailureClass::Failed, "as told", true);
    assert_eq!(
        job.run(0, FAILED),
        [note, moved(0, StageState::Failed), moved(1, StageState::Skipped), moved(2, StageState::Resolved),]
    );
    assert_eq!(job.reason(0), StageReason::TaskFailed(crate::script::task(0, 0)));
    assert_eq!(job.reason(1), StageReason::UpstreamNotSuccessful(StageIndex(0)));
    assert_eq!(job.phases(1), [TaskPhase::Cancelled; 2]);
    assert_eq!(job.run(2, output(0)), [moved(2, StageState::Successful), moved(3, StageState::Resolved)]);
    assert_eq!(job.run(3, output(0)), [moved(3, StageState::Successful), job_moved(JobState::Failed)]);
}

#[test]
fn without_a_failure_its_handler_and_what_needs_the_handler_are_skipped_and_the_job_is_successful() {
    let mut job =
        Job::of([stage(1), when(reading(stage(1), Edge::After, 0), When::OnFailure), reading(stage(1), Edge::All, 1)]);
    assert_eq!(
        job.run(0, output(1)),
        [
            moved(0, StageState::Successful),
            moved(1, StageState::Skipped),
            moved(2, StageState::Skipped),
            job_moved(JobState::Successful),
        ]
    );
    assert_eq!(job.reason(2), StageReason::NothingFailed);
}

#[test]
fn a_running_each_stage_loses_only_the_tasks_whose_upstream_task_failed() {
    let mut job = Job::of([stage(2), reading(stage(2), Edge::Each, 0)]);
    job.run(0, output(1));
    job.assign(1, on("a"), 1);
    job.assign(0, on("a"), 1);
    let effects = job.end(0, 1, 1, on("a"), FAILED);
    assert_eq!(effects[1..], [moved(0, StageState::Failed)]);
    assert_eq!(job.phases(1), [TaskPhase::Assigned, TaskPhase::Cancelled]);
    assert_eq!(job.end(1, 0, 1, on("a"), output(1)), [moved(1, StageState::Failed), job_moved(JobState::Failed)]);
    assert_eq!(job.reason(1), StageReason::UpstreamNotSuccessful(StageIndex(0)));
}

#[test]
fn after_stop_after_failures_pending_tasks_are_cancelled_and_running_ones_may_finish_without_a_retry() {
    let mut first = stage(4);
    first.stop_after = Some(1);
    first.retries.failed = 1;
    let mut job = Job::of([first]);
    job.assign(0, on("a"), 3);
    job.end(0, 0, 1, on("a"), FAILED);
    job.fire();
    job.assign(0, on("a"), 1);
    assert_eq!(job.end(0, 0, 2, on("a"), FAILED).len(), 1, "one note and no move: two tasks still run");
    assert_eq!(job.phases(0), [TaskPhase::Failed, TaskPhase::Assigned, TaskPhase::Assigned, TaskPhase::Cancelled]);
    job.end(0, 1, 1, on("a"), FAILED);
    assert_eq!(job.phases(0)[1], TaskPhase::Failed, "although its own budget has one retry left");
    let note = job.note(
        crate::script::task(0, 2),
        1,
        0,
        muster_graph::execution::FailureClass::ExecutorLost,
        "executor a was lost",
        true,
    );
    assert_eq!(job.lose("a"), [note, moved(0, StageState::Failed), job_moved(JobState::Failed)]);
    assert_eq!(job.phases(0)[2], TaskPhase::Cancelled, "not its own doing");
}

#[test]
fn a_stage_without_tasks_is_successful_as_soon_as_it_resolves() {
    let mut job = Job { graph: ExecutionGraph::new(plans::shared([stage(0)]), JobId(1)), at: 1_000 };
    assert_eq!(
        job.apply(Event::Submitted),
        [moved(0, StageState::Resolved), moved(0, StageState::Successful), job_moved(JobState::Successful)]
    );
}

#[test]
fn a_chain_of_a_hundred_thousand_stages_resolves_and_is_skipped_in_constant_stack() {
    const LENGTH: u32 = 100_000;
    let chain = |tasks: u32| {
        let mut stages = vec![stage(tasks)];
        stages.extend((1..LENGTH).map(|index| reading(stage(if tasks == 0 { 0 } else { 1 }), Edge::After, index - 1)));
        Arc::new(plans::plan(stages))
    };
    let mut job = Job { graph: ExecutionGraph::new(chain(0), JobId(1)), at: 1_000 };
    assert_eq!(job.apply(Event::Submitted).len(), 2 * LENGTH as usize + 1);
    assert_eq!(job.graph.job().state, JobState::Successful);

    let mut job = Job { graph: ExecutionGraph::new(chain(1), JobId(1)), at: 1_000 };
    job.apply(Event::Submitted);
    let effects = job.run(0, FAILED);
    let skipped = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Emit(event) if format!("{event:?}").ends_with("state: Skipped }")));
    assert_eq!(skipped.count(), LENGTH as usize - 1);
    assert_eq!(job.graph.job().state, JobState::Failed);
}

#[test]
fn a_plan_whose_stages_wait_for_each_other_never_resolves_and_never_panics() {
    let mut job = Job::of([reading(stage(1), Edge::All, 1), reading(stage(1), Edge::Each, 0), stage(1)]);
    assert_eq!(job.ready(), [(2, 1)]);
    assert_eq!(job.run(2, output(1)), [moved(2, StageState::Successful)]);
    assert!(!job.graph.is_over());
}
