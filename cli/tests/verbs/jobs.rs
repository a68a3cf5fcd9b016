//! Verbs about jobs: what they print and how they end.

use std::io::Read as _;

use muster_client::fake::Fault;
use muster_client::v1::{self, JobState};
use serde_json::Value;

use crate::harness::{JOB, World, task, view};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_submit_prints_the_id_and_the_spec_arrives_as_written() {
    let world = World::new();
    let spec = world.file("job.yaml", "name: n\nenv: {A: '1', B: '2'}\nrun: [echo, hi]\n");
    let answer = world.say(&["submit", &spec, "-o", "name", "--env", "B=3", "--env", "C=4=5"]);
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));
    let state = world.cluster.state();
    assert_eq!(answer.out, format!("{}\n", state.accepted[0].job));
    let spec = &state.accepted[0].spec;
    assert_eq!(spec.name, "n");
    let env: Vec<_> = spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(env, ["A=1", "B=3", "C=4=5"]);
}

#[test]
fn a_submit_whose_answer_is_lost_makes_one_job() {
    let world = World::new();
    world.cluster.state().faults.insert("submit", [Fault::LoseAnswer].into());
    let spec = world.file("job.yaml", "name: n\nrun: [echo]\n");
    let answer = world.say(&["submit", &spec, "-o", "json"]);
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    let state = world.cluster.state();
    assert_eq!(state.accepted.len(), 1);
    assert_eq!(state.calls.iter().filter(|(call, _)| call == "submit").count(), 2, "the fault did not happen");
    let printed = json(&answer.out);
    assert_eq!(printed["idempotency_key"], state.accepted[0].idempotency_key);
    assert_eq!(printed["existed"], false);
}

#[test]
fn a_key_used_for_another_job_is_a_conflict() {
    let world = World::new();
    let one = world.file("one.yaml", "name: one\nrun: [echo]\n");
    let two = world.file("two.yaml", "name: two\nrun: [echo]\n");
    let submit = |file: &str| world.say(&["submit", file, "--idempotency-key", "k", "-o", "json"]);
    assert_eq!(json(&submit(&one).out)["existed"], false);
    assert_eq!(json(&submit(&one).out)["existed"], true);
    let answer = submit(&two);
    assert_eq!((answer.code, answer.out.as_str()), (Some(7), ""));
    assert!(answer.err.contains("--idempotency-key"), "{}", answer.err);
}

#[test]
fn a_wrong_spec_is_shown_with_its_places_and_never_sent() {
    let world = World::new();
    let spec = world.file("job.yaml", "name: n\nstages:\n  main: {rum: [echo]}\n");
    for verb in ["submit", "run"] {
        let answer = world.say(&[verb, &spec]);
        assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""));
        assert!(answer.err.contains("rum") && answer.err.contains("did you mean `run`?"), "{}", answer.err);
    }
    assert!(world.cluster.state().accepted.is_empty());
}

#[test]
fn waiting_ends_as_the_job_ends() {
    for (state, code) in [(JobState::Successful, 0), (JobState::Failed, 1), (JobState::Cancelled, 3)] {
        let world = World::new();
        world.cluster.state().views.extend([view(JobState::Running), view(state)]);
        assert_eq!(world.say(&["wait", &JOB.to_string()]).code, Some(code), "{state:?}");
        let answer = world.say(&["watch", &JOB.to_string(), "-o", "jsonl"]);
        assert_eq!(answer.code, Some(code), "{state:?}");
        let states: Vec<Value> = answer.out.lines().map(|line| json(line)["state"].clone()).collect();
        assert_eq!(states.len(), 2);
        assert_eq!(states[0], "running");
    }
}

#[test]
fn waiting_for_a_time_ends_with_its_own_code() {
    let world = World::new();
    world.cluster.state().views.push(view(JobState::Running));
    world.cluster.state().faults.insert("watch_job", [Fault::Hang].into());
    let answer = world.say(&["wait", &JOB.to_string(), "--timeout", "200ms"]);
    assert_eq!(answer.code, Some(124), "{}", answer.err);
}

#[test]
fn what_is_not_there_is_said_with_a_code_of_its_own() {
    let world = World::new();
    let id = JOB.to_string();
    for arguments in [
        vec!["job", &id],
        vec!["wait", &id],
        vec!["watch", &id],
        vec!["cancel", &id],
        vec!["retry", &id],
        vec!["logs", &id],
    ] {
        let answer = world.say(&arguments);
        assert_eq!(answer.code, Some(4), "{arguments:?}: {}", answer.err);
        assert!(answer.err.contains("error: ") && answer.err.contains("help: "), "{arguments:?}: {}", answer.err);
    }
    let answer = world.say(&["job", "nonsense"]);
    assert_eq!(answer.code, Some(2));
    assert!(answer.err.contains("is not a job id"), "{}", answer.err);
}

#[test]
fn a_retry_of_unknown_outcome_is_said_to_be_unknown() {
    let world = World::new();
    world.cluster.state().views.push(view(JobState::Failed));
    world.cluster.state().faults.insert("retry_job", [Fault::LoseAnswer].into());
    let answer = world.say(&["retry", &JOB.to_string()]);
    assert_eq!(answer.code, Some(8));
    assert!(answer.err.contains("not known") && answer.err.contains("muster job"), "{}", answer.err);
    assert_eq!(world.cluster.state().retries, 1);
    let answer = world.say(&["retry", &JOB.to_string(), "-o", "json"]);
    assert_eq!(json(&answer.out)["tasks"], 2);
}

#[test]
fn a_busy_cluster_is_told_apart_from_a_missing_one() {
    let world = World::new();
    let busy = || Fault::Refuse(tonic::Status::resource_exhausted("this scheduler has 20000 unfinished jobs"));
    world.cluster.state().faults.insert("list_jobs", (0..1000).map(|_| busy()).collect());
    let answer = world.say(&["jobs", "--call-timeout", "300ms"]);
    assert_eq!(answer.code, Some(6));
    assert!(answer.err.contains("20000 unfinished jobs"), "{}", answer.err);
}

#[test]
fn a_cancel_carries_its_reason() {
    let world = World::new();
    world.cluster.state().views.push(view(JobState::Running));
    let answer = world.say(&["cancel", &JOB.to_string(), "--reason", "wrong input", "-o", "json"]);
    assert_eq!(json(&answer.out)[0]["state"], "cancelled");
    assert_eq!(world.cluster.state().cancels, ["wrong input"]);
}

#[test]
fn a_job_shows_its_tasks_when_asked_and_a_task_by_its_name() {
    let world = World::new();
    world.cluster.state().views.push(view(JobState::Running));
    world.cluster.state().tasks = (0..200).map(|index| task("map", index, 1)).collect();
    let id = JOB.to_string();
    let plain = json(&world.say(&["job", &id, "-o", "json"]).out);
    assert_eq!((&plain["tasks"], &plain["more_tasks"]), (&Value::Null, &Value::Bool(false)));
    let some = json(&world.say(&["job", &id, "--tasks", "-o", "json"]).out);
    assert_eq!((some["tasks"].as_array().unwrap().len(), &some["more_tasks"]), (100, &Value::Bool(true)));
    let one = world.say(&["job", &format!("{id}/map/150"), "-o", "name"]);
    assert_eq!(one.out, format!("{id}/map/150\n"));
    assert_eq!(world.say(&["job", &format!("{id}/map/200")]).code, Some(4));
    let stage = world.say(&["job", &format!("{id}/map"), "--limit", "3", "-o", "name"]);
    assert_eq!(stage.out.lines().count(), 3);
}

#[test]
fn lists_of_jobs_go_over_pages_and_keep_to_the_limit() {
    let world = World::new();
    world.cluster.state().views = (0..2500).map(|_| view(JobState::Successful)).collect();
    let count = |arguments: &[&str]| world.say(arguments).out.lines().count();
    assert_eq!(count(&["jobs", "-o", "name"]), 100);
    assert_eq!(count(&["jobs", "-o", "name", "--limit", "2200"]), 2200);
    assert_eq!(count(&["jobs", "-o", "name", "--limit", "9999"]), 2500);
    assert_eq!(count(&["jobs", "-o", "name", "--state", "failed"]), 0);
    assert!(world.say(&["jobs"]).err.contains("--limit"), "that there are more is said");
    assert_eq!(world.say(&["jobs", "-q"]).err, "");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let world = World::new();
    world.cluster.state().views = (0..2500).map(|_| view(JobState::Successful)).collect();
    let mut child = world.muster(&["jobs", "-o", "jsonl", "--limit", "9999"]).spawn().unwrap();
    let mut reader = child.stdout.take().unwrap();
    // Some hundred bytes of some hundred thousand: the writer is still at it when the pipe closes.
    reader.read_exact(&mut [0; 100]).unwrap();
    drop(reader);
    let answer = crate::harness::heard(child);
    assert_eq!((answer.code, answer.err.as_str()), (Some(141), ""));
}

#[test]
fn outputs_are_listed_and_brought() {
    let world = World::new();
    {
        let mut state = world.cluster.state();
        state.outputs.insert(("a/b".to_owned(), 3), vec![("deep/file".to_owned(), b"content".to_vec())]);
        state.outputs.insert(("none".to_owned(), 0), Vec::new());
    }
    let id = JOB.to_string();
    let listed = json(&world.say(&["outputs", &id, "-o", "json"]).out);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["bytes"], 7);
    let folder = world.home.path().join("results");
    let brought = world.say(&["outputs", &id, "--to", folder.to_str().unwrap(), "-o", "json"]);
    assert_eq!(brought.code, Some(0), "{}", brought.err);
    assert_eq!(json(&brought.out).as_array().unwrap().len(), 1, "nothing is brought of what has nothing");
    assert_eq!(std::fs::read(folder.join("a%2fb/3/deep/file")).unwrap(), b"content");
    let again = world.say(&["outputs", &id, "--to", folder.to_str().unwrap()]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("exists already"), "{}", again.err);
    assert_eq!(world.say(&["outputs", &format!("{id}/a/b/4")]).code, Some(4));
}

#[test]
fn members_of_the_cluster_are_listed() {
    let world = World::new();
    let executor = v1::ExecutorView { executor_id: "node-1".to_owned(), ..Default::default() };
    world.cluster.state().executors.push(executor);
    assert_eq!(world.say(&["executors", "-o", "name"]).out, "node-1\n");
    let schedulers = json(&world.say(&["schedulers", "-o", "json"]).out);
    assert_eq!(schedulers[0]["address"], world.scheduler.address());
    assert_eq!(schedulers[0]["answered"], true);
}

#[test]
fn what_is_set_for_a_namespace_stays_until_it_is_set_anew() {
    let world = World::new();
    let set = |arguments: &[&str]| {
        let answer = world.say(&[&["namespaces", "set", "etl", "-o", "json"], arguments].concat());
        assert_eq!(answer.code, Some(0), "{}", answer.err);
        json(&answer.out)[0].clone()
    };
    let first = set(&["--weight", "300", "--max-running", "10", "--max-cpus", "4.5", "--max-resource", "gpu=2"]);
    assert_eq!(
        (&first["weight"], &first["max_running"], &first["max_cpu_milli"]),
        (&300.into(), &10.into(), &4500.into())
    );
    let second = set(&["--max-running", "none", "--max-memory", "1GiB", "--max-resource", "gpu=none"]);
    assert_eq!((&second["weight"], &second["max_running"]), (&300.into(), &serde_json::Value::Null));
    assert_eq!((&second["max_memory_bytes"], &second["max_named"]), (&(1u64 << 30).into(), &serde_json::json!({})));
    let listed = world.say(&["namespaces"]);
    assert!(listed.out.contains("cpus=4.5 memory=1.0 GiB"), "{}", listed.out);
    assert_eq!(set(&["--reset"])["weight"], 100);
    let wrong = world.say(&["namespaces", "set", "etl", "--max-resource", "gpu"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.err.contains("'gpu' is not NAME=NUMBER"), "{}", wrong.err);
}
