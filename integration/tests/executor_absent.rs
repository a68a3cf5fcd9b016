//! Executors that are out of reach for a while, and come back: what each job's `lost_after` makes of that.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::{Duration, Instant};

use muster_client::{Client, JobId};
use muster_integration::processes::Process;
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_integration::{eventually, journal};
use muster_proto::v1;
use muster_state::testing::Etcd;

/// One task that waits for the gate `go`, and whose output says which attempt made it.
fn waiting(world: &World, name: &str, more: &str) -> v1::JobSpec {
    world.job(&format!(
        r#"
        name: {name}
        {more}
        stages:
          {name}:
            resources: {{{name}: 1, cpu: 0.5}}
            run: |
              eval "$NOTE"
              gate=go; eval "$WAIT"
              echo $MUSTER_ATTEMPT > $MUSTER_OUTPUT_DIR/n
        "#
    ))
}

async fn has_state(client: &Client, executor: &str, state: &str) {
    eventually(&format!("{executor} is {state}"), 40, || async {
        let views = client.list_executors().await.ok()?;
        views.iter().any(|view| view.executor_id == executor && view.state == state).then_some(())
    })
    .await;
}

fn ends(data_dir: &Path, job: JobId) -> usize {
    let job = job.to_string();
    journal::read(data_dir).iter().filter(|line| line.event == "end" && line.job == job).count()
}

/// Named resources let the first attempts run on `away` alone; later ones may run on `kept`, which comes afterwards.
async fn start_away(world: &World, mode: &str, schedulers: &[std::net::SocketAddr]) -> Process {
    let all = ["--resource", "patient=1", "--resource", "hasty=1", "--resource", "usual=1"];
    world.executor("away", mode, schedulers, &all).await
}

async fn start_kept(world: &World, mode: &str, schedulers: &[std::net::SocketAddr]) -> Process {
    let all = ["--resource", "patient=1", "--resource", "hasty=1", "--resource", "usual=1"];
    world.executor("kept", mode, schedulers, &all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_job_gives_a_frozen_executor_up_in_its_own_time_and_late_results_of_what_was_given_up_are_refused() {
    for mode in ["push", "pull"] {
        let world = World::new();
        let etcd = Etcd::start().await.unwrap();
        let one = world.scheduler("one", &etcd.url(), &["--lost-after", "6s"]).await;
        let two = world.scheduler("two", &etcd.url(), &["--lost-after", "6s"]).await;
        let mut away = start_away(&world, mode, &[one.address()]).await;
        // The jobs' owner is not the executor's home, as likely as not.
        let client = client(&[two.address(), one.address()]).await;
        ready(&client, 1).await;
        let mut jobs = Vec::new();
        for (name, more) in [("patient", "lost_after: never"), ("hasty", "lost_after: 2s"), ("usual", "")] {
            jobs.push(client.submit(waiting(&world, name, more), None).await.unwrap().job);
            world.started(name, 1).await;
        }
        let _kept = start_kept(&world, mode, &[two.address()]).await;
        ready(&client, 2).await;

        away.pause();
        world.started("hasty", 2).await;
        assert_eq!((world.starts_of("usual"), world.starts_of("patient")), (1, 1), "{mode}: not their time yet");
        has_state(&client, "away", "lost").await;
        world.started("usual", 2).await;
        // All that were started run to their ends, the frozen executor's too: it has their results when it is back.
        world.open("go");
        for job in &jobs[1..] {
            succeeded(&client, *job).await;
        }
        assert_eq!(client.get_job(jobs[0]).await.unwrap().state(), v1::JobState::Running, "{mode}: it waits");

        away.resume();
        succeeded(&client, jobs[0]).await;
        has_state(&client, "away", "ready").await;
        eventually("the first attempts' ends are told", 30, || async {
            jobs.iter().all(|job| ends(&away.data_dir, *job) == 1).then_some(())
        })
        .await;
        for (job, (name, made_by, attempt)) in
            jobs.iter().zip([("patient", "away", 1), ("hasty", "kept", 2), ("usual", "kept", 2)])
        {
            let task = tasks(&client, *job, name).await.remove(0);
            assert_eq!((task.executor.as_str(), task.attempt), (made_by, attempt), "{mode}: {name}");
            assert_eq!(world.output(&client, *job, name, "n").await, format!("{attempt}\n"), "{mode}: {name}");
        }
        assert_eq!(world.starts_of("patient"), 1, "{mode}: never twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_frozen_for_less_than_the_limit_goes_on_as_if_nothing_had_been() {
    for mode in ["push", "pull"] {
        let world = World::new();
        let scheduler = world.scheduler("s", "memory:", &["--lost-after", "8s"]).await;
        let address = [scheduler.address()];
        let mut away = start_away(&world, mode, &address).await;
        let client = client(&address).await;
        ready(&client, 1).await;
        let job = client.submit(waiting(&world, "usual", ""), None).await.unwrap().job;
        world.started("usual", 1).await;
        let _kept = start_kept(&world, mode, &address).await;
        ready(&client, 2).await;
        away.pause();
        // Its home does not hear of it any more, but the limit is not up.
        has_state(&client, "away", "disconnected").await;
        away.resume();
        has_state(&client, "away", "ready").await;
        world.open("go");
        succeeded(&client, job).await;
        assert_eq!(world.starts_of("usual"), 1, "{mode}");
        assert_eq!(world.output(&client, job, "usual", "n").await, "1\n", "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_returning_executor_runs_in_vain_is_ended() {
    let world = World::new();
    let scheduler = world.scheduler("s", "memory:", &["--lost-after", "60s"]).await;
    let address = [scheduler.address()];
    let mut away = start_away(&world, "push", &address).await;
    let client = client(&address).await;
    ready(&client, 1).await;
    let job = client.submit(waiting(&world, "hasty", "lost_after: 2s"), None).await.unwrap().job;
    world.started("hasty", 1).await;
    let mut kept = start_kept(&world, "push", &address).await;
    ready(&client, 2).await;
    away.pause();
    world.started("hasty", 2).await;
    away.resume();
    eventually("the old attempt is ended", 30, || async { (ends(&away.data_dir, job) == 1).then_some(()) }).await;
    assert_eq!(ends(&kept.data_dir, job), 0, "the new one goes on");
    world.open("go");
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "hasty", "n").await, "2\n");
    kept.assert_alive();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_gives_up_an_executor_that_a_job_waits_for() {
    let world = World::new();
    let scheduler = world.scheduler("s", "memory:", &["--lost-after", "1s"]).await;
    let address = [scheduler.address()];
    let mut away = start_away(&world, "push", &address).await;
    let client = client(&address).await;
    ready(&client, 1).await;
    let job = client.submit(waiting(&world, "patient", "lost_after: never"), None).await.unwrap().job;
    world.started("patient", 1).await;
    let refused = client.remove_executor("away").await.unwrap_err();
    assert!(refused.to_string().contains("in reach"), "{refused}");
    let _kept = start_kept(&world, "push", &address).await;
    ready(&client, 2).await;
    away.kill();
    has_state(&client, "away", "lost").await;
    assert_eq!(world.starts_of("patient"), 1);
    client.remove_executor("away").await.unwrap();
    has_state(&client, "away", "stopped").await;
    world.open("go");
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "patient", "n").await, "2\n");
    let unknown = client.remove_executor("nobody").await.unwrap_err();
    assert!(unknown.to_string().contains("no executor nobody"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_without_schedulers_end_by_themselves_only_if_their_job_said_so() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let mut one = world.scheduler("one", &etcd.url(), &["--lost-after", "2s"]).await;
    let address = one.address();
    let away = start_away(&world, "push", &[address]).await;
    let client = client(&[address]).await;
    ready(&client, 1).await;
    let mut jobs = Vec::new();
    for (name, more) in [("patient", "lost_after: never"), ("usual", ""), ("hasty", "lost_after: 2s")] {
        jobs.push(client.submit(waiting(&world, name, more), None).await.unwrap().job);
        world.started(name, 1).await;
    }
    let cut = Instant::now();
    one.kill();
    eventually("the hasty one is ended", 20, || async { (ends(&away.data_dir, jobs[2]) == 1).then_some(()) }).await;
    assert!(cut.elapsed() > Duration::from_millis(1_000), "not at the first hiccup: {:?}", cut.elapsed());
    assert_eq!((ends(&away.data_dir, jobs[0]), ends(&away.data_dir, jobs[1])), (0, 0));
    let _two = world.scheduler("one", &etcd.url(), &["--listen", &address.to_string(), "--lost-after", "2s"]).await;
    world.open("go");
    for (job, (name, attempt)) in jobs.iter().zip([("patient", 1), ("usual", 1), ("hasty", 2)]) {
        succeeded(&client, *job).await;
        assert_eq!(world.output(&client, *job, name, "n").await, format!("{attempt}\n"), "{name}");
    }
}
