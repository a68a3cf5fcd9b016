//! Cancel, time-out and retry.

use std::time::Duration;

use muster_graph::execution::{
    Effect, Event, ExecutionGraph, JobEvent, JobState, Outcome, StageReason, StageState, TaskPhase, Why,
};
use muster_graph::ids::JobId;
use muster_graph::plan::Edge;
use muster_graph::spec::When;

use crate::plans::{self, reading, stage};
use crate::script::{FAILED, Job, cancel_attempt, ignored, job_moved, launch, moved, on, output};

fn always(mut stage: muster_graph::plan::StagePlan) -> muster_graph::plan::StagePlan {
    stage.when = When::Always;
    stage
}

fn retry_emitted(tasks: u32) -> Effect {
    Effect::Emit(JobEvent::RetryRequested { tasks })
}

#[test]
fn a_cancel_ends_what_runs_and_what_waits_but_lets_the_clean_up_run() {
    let mut job = Job::of([stage(3), reading(stage(1), Edge::All, 0), always(reading(stage(1), Edge::After, 1))]);
    job.assign(0, on("a"), 2);
    assert_eq!(
        job.cancel(),
        [
            Job::cancel_emitted(),
            cancel_attempt(0, 0, 1, 0),
            cancel_attempt(0, 1, 1, 0),
            moved(1, StageState::Cancelled),
            moved(2, StageState::Resolved),
        ]
    );
    assert_eq!(job.cancel(), ignored(Why::Duplicate));
    assert_eq!(job.phases(0), [TaskPhase::Assigned, TaskPhase::Assigned, TaskPhase::Cancelled]);
    assert_eq!(job.assign(0, on("a"), 1), ignored(Why::NotReady));
    assert_eq!(job.end(0, 0, 1, on("a"), output(1)), [], "a success that comes late is accepted");
    assert_eq!(job.end(0, 1, 1, on("a"), Outcome::Cancelled), [moved(0, StageState::Cancelled)]);
    assert_eq!(job.reason(0), StageReason::CancelRequested);
    assert_eq!(job.assign(2, on("a"), 1), [moved(2, StageState::Running), launch(2, 0, 1, 0)]);
    assert_eq!(
        job.end(2, 0, 1, on("a"), output(1)),
        [moved(2, StageState::Successful), job_moved(JobState::Cancelled)]
    );
    assert_eq!(job.cancel(), ignored(Why::Over));
}

#[test]
fn a_cancel_before_anything_began_ends_the_job_at_once() {
    let mut job = Job::of([stage(1_000), reading(stage(1), Edge::All, 0)]);
    let _ = job.graph.take_delta();
    assert_eq!(
        job.cancel(),
        [
            Job::cancel_emitted(),
            job_moved(JobState::Running),
            moved(0, StageState::Cancelled),
            moved(1, StageState::Cancelled),
            job_moved(JobState::Cancelled),
        ]
    );
    assert_eq!(job.graph.take_delta().tasks.len(), 2, "a stage that is struck as a whole is one run");
}

#[test]
fn an_attempt_that_fails_after_a_cancel_is_cancelled_unless_its_budget_is_spent() {
    let mut first = stage(2);
    first.retries.failed = 1;
    let mut job = Job::of([first]);
    job.run(0, FAILED);
    job.fire();
    job.assign(0, on("a"), 2);
    job.cancel();
    job.end(0, 0, 2, on("a"), FAILED);
    job.end(0, 1, 1, on("a"), FAILED);
    assert_eq!(job.phases(0), [TaskPhase::Failed, TaskPhase::Cancelled]);
    assert_eq!(job.graph.job().state, JobState::Failed);
}

#[test]
fn the_time_out_of_a_job_ends_it_like_a_cancel_but_as_failed() {
    let mut plan = plans::plan([stage(1), always(reading(stage(1), Edge::After, 0))]);
    plan.timeout_ms = Some(5_000);
    let mut job = Job::with(plan);
    assert_eq!(job.graph.next_timer(), None, "the time runs from the first assignment");
    job.assign(0, on("a"), 1);
    assert_eq!(job.graph.next_timer(), Some(6_000));
    assert_eq!(job.apply(Event::TimerFired), [], "too early");
    assert_eq!(job.fire(), [Effect::Emit(JobEvent::JobTimedOut), cancel_attempt(0, 0, 1, 0)]);
    assert_eq!(job.graph.next_timer(), None);
    assert_eq!(job.cancel(), ignored(Why::Over));
    assert_eq!(
        job.end(0, 0, 1, on("a"), Outcome::Cancelled),
        [moved(0, StageState::Cancelled), moved(1, StageState::Resolved)]
    );
    assert_eq!(job.reason(0), StageReason::JobTimedOut);
    assert_eq!(job.run(1, output(1)), [moved(1, StageState::Successful), job_moved(JobState::Failed)]);
}

#[test]
fn a_retry_runs_what_failed_and_what_follows_and_keeps_what_was_successful() {
    let mut job = Job::of([
        stage(1),
        stage(2),
        reading(reading(stage(1), Edge::All, 0), Edge::All, 1),
        always(reading(stage(1), Edge::After, 2)),
    ]);
    job.run(0, output(1));
    job.run(1, output(1));
    assert_eq!(job.apply(Event::RetryRequested), ignored(Why::Over), "it is not over");
    job.run(1, FAILED);
    job.run(3, output(1));
    assert_eq!(job.graph.job().state, JobState::Failed);
    assert_eq!(
        job.apply(Event::RetryRequested),
        [
            retry_emitted(3),
            job_moved(JobState::Queued),
            moved(1, StageState::Unresolved),
            moved(2, StageState::Unresolved),
            moved(3, StageState::Unresolved),
            moved(1, StageState::Resolved),
        ]
    );
    assert_eq!(job.phases(1), [TaskPhase::Successful, TaskPhase::Pending]);
    assert_eq!((job.spent(1, 1), job.graph.job().failures.len()), ([0; 6], 0));
    assert_eq!(
        job.assign(1, on("a"), 1),
        [job_moved(JobState::Running), moved(1, StageState::Running), launch(1, 1, 2, 0)]
    );
    job.end(1, 1, 2, on("a"), output(1));
    job.run(2, output(1));
    let clean_up = job.assign(3, on("a"), 1);
    assert_eq!(clean_up, [moved(3, StageState::Running), launch(3, 0, 2, 0)], "the clean-up runs again");
    job.end(3, 0, 2, on("a"), output(1));
    assert_eq!(job.graph.job().state, JobState::Successful);
    assert_eq!(job.apply(Event::RetryRequested), ignored(Why::Over), "nothing failed");
}

#[test]
fn a_retry_after_a_cancel_takes_the_cancel_back() {
    let mut job = Job::of([stage(2)]);
    job.run(0, output(1));
    job.cancel();
    assert_eq!(job.graph.job().state, JobState::Cancelled);
    assert_eq!(
        job.apply(Event::RetryRequested),
        [
            retry_emitted(1),
            job_moved(JobState::Queued),
            moved(0, StageState::Unresolved),
            moved(0, StageState::Resolved),
        ]
    );
    assert_eq!(job.graph.job().cancel, None);
    assert_eq!(job.run(0, output(1)), [moved(0, StageState::Successful), job_moved(JobState::Successful)]);
}

#[test]
fn a_retry_makes_inputs_again_that_were_lost_while_nothing_needed_them() {
    let mut job = Job::of([stage(1), stage(1), reading(reading(stage(1), Edge::All, 0), Edge::After, 1)]);
    job.run(0, output(1));
    job.assign(1, on("b"), 1);
    job.cancel();
    job.lose("a");
    job.end(1, 0, 1, on("b"), Outcome::Cancelled);
    let effects = job.apply(Event::RetryRequested);
    assert!(effects.contains(&crate::script::outputs_lost(0, 1)), "{effects:?}");
    assert_eq!(job.ready(), [(0, 1), (1, 1)]);
}

#[test]
fn a_new_owner_cuts_backoffs_that_an_earlier_ones_clock_made_too_long() {
    let mut flaky = stage(2);
    flaky.retries.failed = 3;
    flaky.retries.backoff = Duration::from_millis(300);
    let mut job = Job::of([flaky]);
    job.at = 3_600_000;
    job.assign(0, on("a"), 1);
    job.end(0, 0, 1, on("a"), FAILED);
    let ends_at = job.graph.next_timer();
    let restored = || ExecutionGraph::restore(job.graph.plan().clone(), JobId(1), [job.graph.snapshot()]).unwrap();

    let mut by_a_slow_clock = restored();
    by_a_slow_clock.go_on_by_another_clock(1_000);
    assert_eq!(by_a_slow_clock.next_timer(), Some(1_300));
    let mut effects = Vec::new();
    by_a_slow_clock.apply(Event::TimerFired, 1_300, &mut effects);
    assert_eq!(by_a_slow_clock.ready().map(|ready| ready.count).sum::<u32>(), 2);

    let mut by_the_same_clock = restored();
    by_the_same_clock.go_on_by_another_clock(job.at + 1);
    assert_eq!(by_the_same_clock.next_timer(), ends_at);
    assert!(by_the_same_clock.take_delta().is_empty());
}
