//! `muster explain`, asked of a real cluster through a scheduler that owns none of the jobs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::process::Command;

use muster_client::{Client, JobId};
use muster_integration::processes::muster;
use muster_integration::world::{World, client, ready, succeeded};
use muster_state::testing::Etcd;

/// What the binary says of a job, a stage or a task, with `ID` for the job's id.
fn explain(scheduler: SocketAddr, job: JobId, rest: &str) -> String {
    let mut command = Command::new(muster());
    command.env_clear().env("MUSTER_SCHEDULERS", scheduler.to_string());
    let said = command.args(["explain", &format!("{job}{rest}")]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(said.status.success(), "{}", text(said.stderr));
    text(said.stdout).replace(&job.to_string(), "ID")
}

/// Waits until it says this of the task.
async fn says(scheduler: SocketAddr, job: JobId, rest: &str, part: &str) -> String {
    let mut last = String::new();
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while !last.contains(part) {
        assert!(tokio::time::Instant::now() < deadline, "it does not say {part:?} but:\n{last}");
        last = explain(scheduler, job, rest);
    }
    last
}

async fn submit(world: &World, client: &Client, yaml: &str) -> JobId {
    client.submit(world.job(yaml), None).await.unwrap().job
}

/// The lines, of which some begin like this.
fn assert_lines(text: &str, lines: &[&str]) {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: Vec<String> = text.lines().map(words).collect();
    for line in lines {
        assert!(said.iter().any(|said| said.starts_with(line)), "{line:?} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_that_does_not_get_on_says_why_and_what_would_help() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let owner = world.scheduler("owner", &etcd.url(), &[]).await;
    let _executor = world.executor("node-1", "push", &[owner.address()], &["--memory", "4GiB"]).await;
    let client = client(&[owner.address()]).await;
    ready(&client, 1).await;

    // Fails at once, and may be tried again much later.
    let flaky = "{name: flaky, retries: {failed: 3, backoff: 10h}, run: 'echo broken >&2; exit 3'}";
    let flaky = submit(&world, &client, flaky).await;
    let said = says(owner.address(), flaky, "/main/0", "backs off").await;
    assert_lines(
        &said,
        &[
            "Job: ID (flaky)",
            "main/0 pending 1 backs off after a failed attempt; attempt 2 may follow in ",
            "- main/0: attempt 1: exit code 3",
            "- main/0: failed 1 time; 3 are allowed",
        ],
    );

    // Holds all of the only executor, and two more of its tasks wait.
    let long = submit(&world, &client, r#"{name: long, tasks: 4, run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}"#).await;
    world.started("main", 2).await;
    let said = says(owner.address(), long, "", "2  run on node-1").await;
    assert_lines(
        &said,
        &["main running 2 no room: the only executor is busy; it is first in line", "main running 2 run on node-1"],
    );

    let chain = "
name: chain
namespace: other
stages:
  count: {tasks: 3, run: 'true'}
  sum: {inputs: [count], run: 'true'}
";
    let chain = submit(&world, &client, chain).await;
    let said = says(owner.address(), chain, "", "no room").await;
    assert_lines(
        &said,
        &[
            "State: queued",
            "count resolved 3 no room: the only executor is busy; it is first in line",
            "sum unresolved 1 waits for count (0 of 3 tasks done)",
        ],
    );
    let said = explain(owner.address(), chain, "/count/2");
    let line = "count/2 pending - no room: the only executor is busy; 2 tasks are before it in line";
    assert_lines(&said, &[line, "- count/2: before it: 2 tasks of its own job"]);
    let said = explain(owner.address(), long, "/main/3");
    let share = "- main/3: namespace default has 100.0 % of the cluster, with a weight of 100; who goes first has less";
    assert_lines(&said, &[share]);
    assert!(!said.contains(&chain.to_string()), "another namespace's job is named: {said}");
    assert_lines(&explain(owner.address(), chain, "/sum"), &["- sum: count: 3 pending, 0 assigned or running"]);

    let huge = submit(&world, &client, "{name: huge, resources: {memory: 64GiB}, run: 'true'}").await;
    // One that owns nothing asks whoever does.
    let other = world.scheduler("other", &etcd.url(), &[]).await;
    let huge_said = says(other.address(), huge, "", "large enough").await;
    let expected = "Job:    ID (huge)
State:  queued
Tasks:  0 of 1 successful

Stages
STAGE  STATE     TASKS  WHY
main   resolved      1  no executor is large enough: a task wants 1 core, 64 GiB of memory

What would help
- main: fits on 1 executor if memory <= 4 GiB
- main: an executor with 1 core, 64 GiB of memory or more
";
    assert_eq!(huge_said, expected);
    let _large = world.executor("node-2", "pull", &[owner.address()], &["--memory", "64GiB", "--cpus", "8"]).await;
    succeeded(&client, huge).await;
    assert_lines(&explain(other.address(), huge, "/main"), &["State: successful", "main successful - successful"]);

    world.open("go");
    succeeded(&client, long).await;
    succeeded(&client, chain).await;
    assert_lines(&explain(other.address(), chain, "/sum/0"), &["sum/0 successful 1 was successful on node-"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_not_run_any_more_says_why() {
    let world = World::new();
    let cluster = world.up("up").await;
    let client = client(&[cluster.address()]).await;
    ready(&client, 1).await;
    let failing = "
name: failing
stages:
  fetch: {tasks: 2, run: 'exit $MUSTER_TASK_INDEX'}
  join: {inputs: [fetch], run: 'true'}
  mend: {after: [join], when: on_failure, run: 'eval \"$NOTE\"; gate=go; eval \"$WAIT\"'}
";
    let failing = submit(&world, &client, failing).await;
    world.started("mend", 1).await;
    let at = cluster.address();
    let said = explain(at, failing, "");
    assert!(!said.contains("join"), "what is over is not told unasked: {said}");
    assert_lines(&explain(at, failing, "/join"), &["join skipped - skipped: stage fetch was not successful"]);
    let said = explain(at, failing, "/fetch/1");
    assert_lines(
        &said,
        &[
            "fetch/1 failed 1 attempt 1 failed on",
            "- fetch/1: attempt 1: exit code 1",
            "- fetch/1: once the job is over, `muster retry ID` runs it, together with what failed",
        ],
    );
    world.open("go");
    let over = client.wait(failing).await.unwrap();
    assert_eq!(over.state(), muster_client::v1::JobState::Failed);
    assert_lines(&explain(at, failing, ""), &["State: failed", "Why: fetch/1: exit code 1"]);
    assert_lines(&explain(at, failing, "/join"), &["- join: `muster retry ID` runs it, together with what failed"]);
}
