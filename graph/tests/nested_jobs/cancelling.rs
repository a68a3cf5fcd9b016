//! Cancels and time-outs.

use muster_graph::execution::{Effect, Event, JobState, Outcome, StageState};

use super::Job;

const TEXT: &str = "name: job\ntimeout: 1s\nstages: {c: {job: {stages: {d: {job: {stages: {a: {run: x}, b: {after: [a], run: x}, \
                    tidy: {after: [a], when: always, run: x}}}}}}}, e: {after: [c], run: x}, \
                    last: {after: [c], when: always, job: {stages: {f: {run: x}, g: {after: [f], run: x}}}}}";

fn ended(mut job: Job, event: Event, at: u64) -> Job {
    let tasks = job.assign("c/d/a");
    let mut effects = Vec::new();
    job.graph.apply(event, at, &mut effects);
    let cancelled: Vec<_> = effects.iter().filter(|effect| matches!(effect, Effect::CancelAttempt { .. })).collect();
    assert_eq!(cancelled.len(), 1, "the task deep inside is asked to end");
    job.end(tasks, Outcome::Cancelled);
    job.run_all(&[]);
    assert_eq!(
        job.ran,
        ["c/d/a", "c/d/tidy", "last/f", "last/g"],
        "what runs always does so, and a nested job as a whole"
    );
    let states = ["c/d/a", "c/d/b", "c/d", "c", "e", "last"].map(|name| job.state(name));
    let cancelled = StageState::Cancelled;
    assert_eq!(states, [cancelled, cancelled, cancelled, cancelled, cancelled, StageState::Successful]);
    job
}

#[test]
fn cancel_reaches_nested_tasks() {
    let job = ended(Job::of(TEXT), Event::CancelRequested { reason: "enough".to_owned() }, 1_000);
    assert_eq!(job.job_state(), JobState::Cancelled);
}

#[test]
fn a_time_out_reaches_nested_tasks() {
    let job = ended(Job::of(TEXT), Event::TimerFired, 2_000);
    assert_eq!(job.job_state(), JobState::Failed);
}

#[test]
fn a_cancelled_job_that_did_not_begin_runs_nothing_inside() {
    let mut job = Job::of(
        "stages: {a: {run: x}, c: {after: [a], job: {stages: {b: {run: x}, t: {after: [b], when: always, run: x}}}}}",
    );
    let tasks = job.assign("a");
    job.apply(Event::CancelRequested { reason: String::new() });
    job.end(tasks, Outcome::Cancelled);
    job.run_all(&[]);
    assert_eq!(job.ran, ["a"]);
    assert_eq!((job.state("c/t"), job.state("c")), (StageState::Skipped, StageState::Cancelled));
    job.retry();
    job.run_all(&[]);
    assert_eq!((job.ran.len(), job.job_state()), (3, JobState::Successful));
}

#[test]
fn an_end_opens_again_with_what_is_inside() {
    let mut job =
        Job::of("stages: {c: {job: {outputs: a, stages: {a: {run: x}}}}, d: {inputs: [c], tasks: 2, run: x}}");
    job.run("c/a", true);
    assert_eq!(job.state("c"), StageState::Successful);
    let a = muster_graph::ids::TaskId::new(1, 0);
    job.apply(Event::OutputLost { task: a, attempt: 1 });
    assert_eq!(
        (job.state("c/a"), job.state("c"), job.ready()),
        (StageState::Running, StageState::Unresolved, vec!["c/a".to_owned()])
    );
    let mut job = job.taken_over();
    job.run("c/a", false);
    assert_eq!(
        (job.state("c"), job.state("d"), job.job_state()),
        (StageState::Failed, StageState::Skipped, JobState::Failed)
    );
}
