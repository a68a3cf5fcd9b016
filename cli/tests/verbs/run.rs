//! `muster run` on a cluster that is configured.

use std::time::{Duration, Instant};

use muster_client::JobId;
use muster_client::fake::Fault;
use muster_client::v1::{self, JobState, StageState};

use crate::harness::{World, heard, task};

/// The id that the scripted cluster gives to its first job.
const FIRST: JobId = JobId(1);

/// `top` reads `map`; `complain` only waits for it.
const SPEC: &str = "\
name: sample
stages:
  map: {run: [echo]}
  top: {run: [echo], inputs: [map]}
  complain: {run: [echo], after: [map], when: on_failure}
";

fn view(state: JobState, stages: Vec<v1::StageView>) -> v1::JobView {
    let tasks = Some(v1::Counts { successful: 2, ..Default::default() });
    let (job_id, name) = (FIRST.to_string(), "sample".to_owned());
    v1::JobView {
        job_id,
        name,
        state: state.into(),
        tasks,
        stages,
        started_at_ms: 1000,
        finished_at_ms: 3500,
        ..Default::default()
    }
}

fn stage(number: u32, name: &str, needs: &[&str], state: StageState) -> v1::StageView {
    let needs = needs.iter().map(|&name| name.to_owned()).collect();
    let tasks = Some(v1::Counts { successful: 1, ..Default::default() });
    v1::StageView { stage: number, name: name.to_owned(), needs, state: state.into(), tasks, ..Default::default() }
}

fn world(views: Vec<v1::JobView>) -> (World, String) {
    let world = World::new();
    world.cluster.state().views = views;
    let spec = world.file("job.yaml", SPEC);
    (world, spec)
}

#[test]
fn a_good_run_prints_what_its_last_stages_wrote_and_nothing_else() {
    let stages = vec![
        v1::StageView { output_read: true, ..stage(0, "map", &[], StageState::Successful) },
        stage(1, "top", &["map"], StageState::Successful),
        stage(2, "complain", &["map"], StageState::Skipped),
    ];
    let (world, spec) = world(vec![view(JobState::Successful, stages)]);
    {
        let mut state = world.cluster.state();
        state.tasks = vec![task("map", 0, 1), task("top", 0, 1), task("complain", 0, 0)];
        state.logs.insert(("map".to_owned(), 0, 1, false), b"not the result\n".to_vec());
        state.logs.insert(("top".to_owned(), 0, 1, false), b"the result\n".to_vec());
        state.outputs.insert(("top".to_owned(), 0), vec![("top.txt".to_owned(), b"kept".to_vec())]);
    }
    let folder = world.home.path().join("results");
    let answer = world.say(&["run", &spec, "--idempotency-key", "k", "--outputs", folder.to_str().unwrap()]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), "the result\n"), "{}", answer.err);
    assert!(answer.err.contains("successful (2 of 2 successful, took 2.5s)"), "{}", answer.err);
    assert_eq!(std::fs::read(folder.join("top/0/top.txt")).unwrap(), b"kept");
    let quiet = world.say(&["run", &spec, "--idempotency-key", "k", "--quiet"]);
    assert_eq!((quiet.out.as_str(), quiet.err.as_str()), ("the result\n", ""));
}

#[test]
fn a_failed_run_prints_why_with_the_failing_tasks_log() {
    let mut failed = view(JobState::Failed, vec![stage(0, "map", &[], StageState::Failed)]);
    failed.message = "stage map failed".to_owned();
    let failure = |index, r#final| v1::Failure {
        stage: "map".to_owned(),
        index,
        attempt: 2,
        outcome: v1::Outcome::Failed.into(),
        exit: Some(v1::Exit { how: Some(v1::exit::How::Code(3)) }),
        r#final,
        ..Default::default()
    };
    failed.failures = vec![failure(0, false), failure(1, true)];
    let (world, spec) = world(vec![failed]);
    {
        let mut state = world.cluster.state();
        state.tasks = vec![task("map", 0, 3), task("map", 1, 2)];
        let long = "noise\n".repeat(5000) + "the disk is full\n";
        state.logs.insert(("map".to_owned(), 1, 2, true), long.into_bytes());
    }
    let answer = world.say(&["run", &spec]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(1), ""));
    assert!(answer.err.contains("--- map/1, attempt 2: failed, exit 3\n"), "{}", answer.err);
    assert!(answer.err.contains("the disk is full"), "{}", answer.err);
    assert!(!answer.err.contains("map/0"), "an attempt that was retried is not why the job failed: {}", answer.err);
    assert!(answer.err.contains("stage map failed"), "{}", answer.err);
    assert!(answer.err.len() < 10_000, "only the end of the log: {} bytes", answer.err.len());
}

#[test]
fn a_cancelled_run_has_a_code_of_its_own() {
    let (world, spec) = world(vec![view(JobState::Cancelled, Vec::new())]);
    assert_eq!(world.say(&["run", &spec]).code, Some(3));
}

#[test]
fn with_json_the_answer_is_the_job() {
    let (world, spec) = world(vec![view(JobState::Successful, Vec::new())]);
    let answer = world.say(&["run", &spec, "-o", "json"]);
    let job: serde_json::Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((&job["id"], &job["state"]), (&FIRST.to_string().into(), &"successful".into()));
}

/// Waits until the cluster has got a call.
fn until_called(world: &World, call: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !world.cluster.state().calls.iter().any(|(name, _)| name == call) {
        assert!(Instant::now() < deadline, "{call} never came");
        std::thread::yield_now();
    }
}

fn signalled(signal: rustix::process::Signal) -> (World, Option<i32>, String) {
    let (world, spec) = world(vec![view(JobState::Running, Vec::new())]);
    // The first watch is the run's; the second is the wait for the end of the cancelled job.
    world.cluster.state().faults.insert("watch_job", [Fault::Hang].into());
    let child = world.muster(&["run", &spec]).spawn().unwrap();
    until_called(&world, "watch_job");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, signal).unwrap();
    let answer = heard(child);
    (world, answer.code, answer.err)
}

#[test]
fn an_interrupted_run_cancels_its_job_and_says_so_in_its_code() {
    let (world, code, err) = signalled(rustix::process::Signal::INT);
    assert_eq!(code, Some(130), "{err}");
    assert_eq!(world.cluster.state().cancels, ["the run was interrupted"]);
    let (world, code, err) = signalled(rustix::process::Signal::TERM);
    assert_eq!(code, Some(143), "{err}");
    assert_eq!(world.cluster.state().cancels.len(), 1);
}
