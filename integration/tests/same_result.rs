//! One job, on every store and with every kind of executor: real processes, one result. And where it is in etcd.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;

use muster_client::JobId;
use muster_integration::processes::Process;
use muster_integration::recorder::Etcd as Recorder;
use muster_integration::world::{World, client, ready, succeeded};
use muster_integration::{checker, eventually, journal, word_count};
use muster_state::testing::Etcd;

/// More than fit into a head, so that plan, buckets and deltas have records of their own.
const MAP_TASKS: u32 = 70;
const TASKS: usize = MAP_TASKS as usize + 4 + 1;

/// Runs the word count on a scheduler with executors of these modes, and compares with the pipeline.
async fn counts_as_the_pipeline(world: &World, scheduler: SocketAddr, name: &str, modes: &[&str]) -> JobId {
    let mut executors: Vec<Process> = Vec::new();
    for mode in modes {
        executors.push(world.executor(&format!("{name}-{mode}"), mode, &[scheduler], &[]).await);
    }
    let client = client(&[scheduler]).await;
    ready(&client, modes.len()).await;
    let views = client.list_executors().await.unwrap();
    let mut ready: Vec<&str> =
        views.iter().filter(|view| view.state == "ready").map(|view| view.mode.as_str()).collect();
    ready.sort_unstable();
    assert_eq!(ready, modes, "pull before push, as the caller names them");
    let text = world.path("text");
    let job = client.submit(word_count::job(&text, MAP_TASKS), None).await.unwrap().job;
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "top", "top.txt").await, word_count::expected(&text));
    let starts: Vec<usize> = executors.iter().map(|executor| journal::starts(&executor.data_dir, job)).collect();
    assert_eq!(starts.iter().sum::<usize>(), TASKS, "{starts:?}");
    assert!(starts.iter().all(|starts| *starts > 0), "every executor had work: {starts:?}");
    job
}

fn world_with_text() -> World {
    let world = World::new();
    word_count::write_text(&world.path("text"));
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redb_with_push_and_pull_and_both() {
    let world = world_with_text();
    let store = format!("redb://{}", world.path("store").display());
    // One store for all of them, over three lives of a scheduler.
    for (name, modes) in [("first", &["push"][..]), ("second", &["pull"]), ("third", &["pull", "push"])] {
        let mut scheduler = world.scheduler(name, &store, &[]).await;
        counts_as_the_pipeline(&world, scheduler.address(), name, modes).await;
        assert!(scheduler.terminate().await.success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_memory_with_push_and_pull_and_both() {
    let world = world_with_text();
    for (name, modes) in [("first", &["push"][..]), ("second", &["pull"]), ("third", &["pull", "push"])] {
        let scheduler = world.scheduler(name, "memory:", &[]).await;
        counts_as_the_pipeline(&world, scheduler.address(), name, modes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_etcd_with_push_and_pull_and_both() {
    let world = world_with_text();
    let etcd = Etcd::start().await.unwrap();
    for (name, modes) in [("first", &["push"][..]), ("second", &["pull"]), ("third", &["pull", "push"])] {
        let recorder = Recorder::start(&etcd.endpoints(), name);
        let scheduler = world.scheduler(name, &etcd.url(), &["--cluster", name]).await;
        let job = counts_as_the_pipeline(&world, scheduler.address(), name, modes).await;
        let kept = kinds_of_keys(&etcd, name, job);
        assert!(kept.is_superset(&names(&["completed", "deltas", "plans"])), "{kept:?}");
        assert!(names(&["active", "failed", "owners"]).is_disjoint(&kept), "over, and nobody's any more: {kept:?}");
        let executors: Vec<String> = modes.iter().map(|mode| format!("{name}-{mode}")).collect();
        let executors: Vec<&str> = executors.iter().map(String::as_str).collect();
        let verdict = checker::check(&world.evidence(recorder.finish().await.unwrap(), &executors));
        verdict.assert_clean();
        assert_eq!((verdict.statistics.accepted, verdict.statistics.run_more_than_once), (TASKS, 0), "{verdict}");
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The keyspaces in which a job has keys, as etcd's own tool shows them.
fn kinds_of_keys(etcd: &Etcd, cluster: &str, job: JobId) -> BTreeSet<String> {
    let prefix = format!("/muster/{cluster}/");
    let answer = Command::new("etcdctl")
        .args(["--endpoints", &etcd.endpoint(), "get", "--prefix", "--keys-only", &prefix])
        .output()
        .expect("etcdctl can be started (Debian's package is etcd-client)");
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let text = String::from_utf8(answer.stdout).expect("our keys are text");
    let of_job = |key: &str| {
        let (keyspace, name) = key.strip_prefix(&prefix)?.split_once('/')?;
        (name == job.to_string() || name.starts_with(&format!("{job}/"))).then(|| keyspace.to_owned())
    };
    text.lines().filter_map(of_job).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_runs_lies_in_etcd_with_its_owner_its_plan_and_its_deltas() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let scheduler = world.scheduler("s", &etcd.url(), &[]).await;
    let _executor = world.executor("e", "push", &[scheduler.address()], &[]).await;
    let client = client(&[scheduler.address()]).await;
    let spec = world.job(
        r"
        name: held
        stages:
          many: {tasks: 100, run: 'true'}
          held: {after: [many], run: 'gate=go; eval $WAIT'}
        ",
    );
    let job = client.submit(spec, None).await.unwrap().job;
    eventually("the hundred are done", 60, || async {
        let counts = client.get_job(job).await.ok()?.tasks?;
        (counts.successful == 100 && counts.running == 1).then_some(())
    })
    .await;
    let kept = kinds_of_keys(&etcd, "default", job);
    assert!(kept.is_superset(&names(&["active", "deltas", "owners", "plans"])), "{kept:?}");
    assert!(!kept.contains("completed"), "{kept:?}");
    world.open("go");
    succeeded(&client, job).await;
    let kept = kinds_of_keys(&etcd, "default", job);
    assert!(kept.contains("completed") && !kept.contains("active"), "{kept:?}");
}
