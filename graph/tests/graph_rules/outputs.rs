//! Outputs that are made again, the same or not.

use muster_graph::execution::{Effect, Event, JobState, StageState, TaskPhase, Why};
use muster_graph::plan::Edge;

use crate::plans::{reading, stage};
use crate::script::{Job, cancel_attempt, ignored, inputs_changed, job_moved, moved, on, output, outputs_lost, task};

fn output_lost(job: &mut Job, stage: u32, index: u32, attempt: u32) -> Vec<Effect> {
    job.apply(Event::OutputLost { task: task(stage, index), attempt })
}

/// A producer of two tasks, and a reader of both with one task done, one running and one pending.
fn half_read(deterministic: bool) -> Job {
    let mut producer = stage(2);
    producer.deterministic = deterministic;
    let mut job = Job::of([producer, reading(stage(3), Edge::All, 0)]);
    job.run(0, output(1));
    job.run(0, output(2));
    job.run_on("b", 1, output(7));
    job.assign(1, on("b"), 1);
    job
}

#[test]
fn an_equal_second_output_only_tells_the_readers_where_it_lies() {
    let mut job = half_read(true);
    assert_eq!(output_lost(&mut job, 0, 0, 1), [outputs_lost(0, 1), moved(0, StageState::Running)]);
    assert_eq!(output_lost(&mut job, 0, 0, 1), ignored(Why::Superseded));
    assert_eq!(job.ready(), [(0, 1)], "no reader starts meanwhile");
    assert_eq!(job.run_on("b", 0, output(1)), [moved(0, StageState::Successful)]);
    assert_eq!(job.phases(1), [TaskPhase::Successful, TaskPhase::Assigned, TaskPhase::Pending]);
    assert_eq!(job.inputs_revision(1), 1);
}

#[test]
fn a_different_second_output_takes_every_reader_back() {
    let mut job = half_read(true);
    output_lost(&mut job, 0, 0, 1);
    assert_eq!(
        job.run_on("b", 0, output(9)),
        [cancel_attempt(1, 1, 1, 1), inputs_changed(1, 2), moved(0, StageState::Successful)]
    );
    assert_eq!(job.phases(1), [TaskPhase::Pending; 3]);
    assert_eq!(job.end(1, 1, 1, on("b"), output(7)), ignored(Why::Superseded), "it read the first output");
}

#[test]
fn a_stage_that_is_not_deterministic_is_taken_to_differ() {
    let mut job = half_read(false);
    output_lost(&mut job, 0, 0, 1);
    assert_eq!(
        job.run_on("b", 0, output(1)),
        [cancel_attempt(1, 1, 1, 1), inputs_changed(1, 2), moved(0, StageState::Successful)]
    );
}

#[test]
fn a_difference_travels_down_as_far_as_outputs_differ() {
    // 0 → 1 → 2 by task, and 3 reads 0 as a whole and keeps it needed.
    let mut job = Job::of([
        stage(1),
        reading(stage(1), Edge::Each, 0),
        reading(stage(1), Edge::Each, 1),
        reading(stage(1), Edge::All, 0),
    ]);
    for stage in 0..3 {
        job.run(stage, output(1));
    }
    output_lost(&mut job, 0, 0, 1);
    assert_eq!(
        job.run(0, output(2)),
        [inputs_changed(1, 1), moved(1, StageState::Running), moved(0, StageState::Successful)]
    );
    assert_eq!(job.phases(2), [TaskPhase::Successful], "not before it is known that 1 differs");
    assert_eq!(
        job.run(1, output(3)),
        [inputs_changed(2, 1), moved(2, StageState::Running), moved(1, StageState::Successful)]
    );
    assert_eq!(job.run(2, output(1)), [moved(2, StageState::Successful)]);
    assert_eq!(job.run(3, output(1)), [moved(3, StageState::Successful), job_moved(JobState::Successful)]);
}

#[test]
fn what_was_given_up_is_remembered_by_a_restored_graph() {
    for (second, reader) in [(1, TaskPhase::Successful), (9, TaskPhase::Pending)] {
        let mut job = half_read(true);
        output_lost(&mut job, 0, 0, 1);
        let stored = job.graph.snapshot();
        let plan = job.graph.plan().clone();
        job.graph = muster_graph::execution::ExecutionGraph::restore(plan, job.graph.job_id(), [stored]).unwrap();
        job.run_on("b", 0, output(second));
        assert_eq!(job.phases(1)[0], reader);
    }
}

#[test]
fn a_lost_output_of_a_stage_that_starts_nothing_any_more_is_not_made_again() {
    let mut job = Job::of([stage(1), reading(stage(1), Edge::All, 0)]);
    job.run(0, output(1));
    job.assign(1, on("b"), 1);
    job.cancel();
    assert_eq!(output_lost(&mut job, 0, 0, 1), ignored(Why::Over));
    assert_eq!(job.lose("a"), []);
    assert_eq!(job.phases(0), [TaskPhase::Successful]);
}

#[test]
fn a_handler_skipped_for_want_of_a_failure_waits_again_when_a_lost_output_brings_one() {
    let mut handler = reading(stage(1), Edge::After, 0);
    handler.when = muster_graph::spec::When::OnFailure;
    let mut job = Job::of([stage(1), reading(stage(1), Edge::All, 0), handler]);
    job.run(0, output(1));
    assert_eq!(job.state(2), StageState::Skipped);
    assert_eq!(
        output_lost(&mut job, 0, 0, 1),
        [outputs_lost(0, 1), moved(0, StageState::Running), moved(2, StageState::Unresolved)]
    );
    let effects = job.run(0, crate::script::FAILED);
    assert_eq!(
        effects[1..],
        [moved(0, StageState::Failed), moved(1, StageState::Skipped), moved(2, StageState::Resolved)]
    );
    job.run(2, output(1));
    assert_eq!(job.graph.job().state, JobState::Failed);
}

#[test]
fn a_skipped_stage_does_not_make_again_what_it_had_before_a_retry() {
    let mut reader = reading(stage(1), Edge::All, 1);
    reader.when = muster_graph::spec::When::Always;
    let mut job = Job::of([stage(2), reading(stage(2), Edge::Each, 0), reader]);
    job.run(0, output(1));
    job.run(1, output(1));
    job.run(0, crate::script::FAILED);
    job.run(2, output(1));
    job.apply(Event::RetryRequested);
    job.run(0, crate::script::FAILED);
    assert_eq!((job.state(1), job.state(2)), (StageState::Skipped, StageState::Resolved));
    assert_eq!(job.phases(1), [TaskPhase::Successful, TaskPhase::Cancelled]);
    assert_eq!(output_lost(&mut job, 1, 0, 1), ignored(Why::Over));
    assert_eq!(job.ready(), [(2, 1)]);
}
