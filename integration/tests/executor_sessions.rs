//! Executors' sessions: what they write, where they go, how they leave, and tasks that kill them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use muster_client::{Client, JobId, LogRequest, LogStream};
use muster_integration::eventually;
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_proto::v1;
use muster_state::testing::Etcd;
use muster_state::{Keyspace, Memory, Revision, StateBackend};

async fn has_state(client: &Client, executor: &str, state: &str) {
    eventually(&format!("{executor} is {state}"), 40, || async {
        let views = client.list_executors().await.ok()?;
        views.iter().any(|view| view.executor_id == executor && view.state == state).then_some(())
    })
    .await;
}

/// Waits until a process has logged something.
async fn logged(world: &World, process: &str, text: &str) {
    let log = world.path("logs").join(format!("{process}.log"));
    eventually(&format!("{process} logs {text}"), 30, || async {
        std::fs::read_to_string(&log).unwrap().contains(text).then_some(())
    })
    .await;
}

/// When each executor's record was written last.
async fn written(store: &dyn StateBackend) -> BTreeMap<String, Revision> {
    let page = store.get_from_prefix(Keyspace::Executors, "").await.unwrap();
    page.entries.into_iter().map(|entry| (entry.name, entry.mod_revision)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_write_nothing() {
    muster_integration::cluster::logs();
    let store: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let scheduler = muster_integration::cluster::scheduler("s", Arc::clone(&store)).await.unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut executors = Vec::new();
    for (id, mode) in [("pushed", muster_executor::Mode::Push), ("pulling", muster_executor::Mode::Pull)] {
        let mut options = muster_executor::Options::new(place.path().join(id), vec![scheduler.address().to_string()]);
        options.id = Some(id.to_owned());
        options.mode = mode;
        options.supervisor = vec![muster_integration::processes::muster().into(), "supervise".into()];
        executors.push(muster_executor::Executor::start(options).await.unwrap());
    }
    let client = client(&[scheduler.address()]).await;
    ready(&client, 2).await;
    let before = written(&*store).await;
    assert_eq!(before.len(), 2, "{before:?}");
    // Longer than an executor may be silent, by far: it has sent heartbeats.
    tokio::time::sleep(Duration::from_secs(5)).await;
    ready(&client, 2).await;
    assert_eq!(written(&*store).await, before, "the store is written when something changes");
    // The same look sees a change.
    client.drain_executor(drain("pushed")).await.unwrap();
    eventually("the drained one's record is written", 20, || async {
        let now = written(&*store).await;
        (now["pushed"] != before["pushed"] && now["pulling"] == before["pulling"]).then_some(())
    })
    .await;
    for executor in executors {
        executor.stop().await;
    }
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_finds_schedulers_that_it_was_never_told_of() {
    for mode in ["push", "pull"] {
        let world = World::new();
        let etcd = Etcd::start().await.unwrap();
        let mut first = world.scheduler("first", &etcd.url(), &[]).await;
        let _executor = world.executor("e", mode, &[first.address()], &[]).await;
        ready(&client(&[first.address()]).await, 1).await;
        // It comes later: only a heartbeat's answer can tell of it.
        let second = world.scheduler("second", &etcd.url(), &[]).await;
        let client = client(&[second.address()]).await;
        logged(&world, "e", &second.address().to_string()).await;
        first.kill();
        let spec = world.job(r#"{name: n, run: 'eval "$NOTE"'}"#);
        let job = client.submit(spec, None).await.unwrap().job;
        succeeded(&client, job).await;
        eventually("its home is the second one", 30, || async {
            (client.list_executors().await.ok()?[0].home == "second").then_some(())
        })
        .await;
    }
}

fn drain(executor: &str) -> v1::DrainExecutorRequest {
    v1::DrainExecutorRequest { executor_id: executor.to_owned(), ..Default::default() }
}

const MAKES_AND_READS: &str = r#"
name: leaving
stages:
  made: {tasks: 2, resources: {a: 1, cpu: 0.1}, run: 'eval "$NOTE"; echo made $MUSTER_TASK_INDEX; echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/n'}
  held: {after: [made], resources: {b: 1, cpu: 0.1}, run: 'eval "$NOTE"; gate=held; eval "$WAIT"'}
  more: {after: [made], tasks: 4, resources: {cpu: 0.1}, run: 'eval "$NOTE"; gate=more; eval "$WAIT"'}
  sum:
    inputs: {made: all}
    after: [held]
    resources: {b: 1, cpu: 0.1}
    run: |
      eval "$NOTE"
      cat $MUSTER_INPUT_DIR/made/*/n | awk '{ s += $1 } END { print s }' > $MUSTER_OUTPUT_DIR/n
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_executor_finishes_what_it_has_hands_its_outputs_over_and_leaves() {
    for mode in ["push", "pull"] {
        let world = World::new();
        let etcd = Etcd::start().await.unwrap();
        let one = world.scheduler("one", &etcd.url(), &[]).await;
        let two = world.scheduler("two", &etcd.url(), &[]).await;
        let mut leaves =
            world.executor("leaves", mode, &[one.address()], &["--resource", "a=9", "--cpus", "0.4"]).await;
        let client = client(&[two.address(), one.address()]).await;
        ready(&client, 1).await;
        let job = client.submit(world.job(MAKES_AND_READS), None).await.unwrap().job;
        world.started("more", 4).await;
        let _stays = world.executor("stays", mode, &[two.address()], &["--resource", "b=9"]).await;
        ready(&client, 2).await;
        world.started("held", 1).await;

        client.drain_executor(v1::DrainExecutorRequest { stop: true, ..drain("leaves") }).await.unwrap();
        has_state(&client, "leaves", "draining").await;
        // New tasks go elsewhere, though they would fit.
        let other = world.job(r#"{name: other, tasks: 3, resources: {cpu: 0.1}, run: 'eval "$NOTE"'}"#);
        let other = client.submit(other, None).await.unwrap().job;
        world.open("more");
        succeeded(&client, other).await;
        assert!(tasks(&client, other, "main").await.iter().all(|task| task.executor == "stays"), "{mode}");
        let more = tasks(&client, job, "more").await;
        eventually("what it ran has ended there", 30, || async {
            let more = tasks(&client, job, "more").await;
            more.iter().all(|task| task.state() == v1::TaskState::Successful).then_some(())
        })
        .await;
        assert!(more.iter().all(|task| (task.executor.as_str(), task.attempt) == ("leaves", 1)), "{mode}: {more:?}");
        // Its outputs are still to be read, so another one gets them.
        leaves.ended().await;
        has_state(&client, "leaves", "stopped").await;
        let made = tasks(&client, job, "made").await;
        assert!(made.iter().all(|task| (task.executor.as_str(), task.attempt) == ("stays", 1)), "{mode}: {made:?}");
        world.open("held");
        succeeded(&client, job).await;
        assert_eq!(world.output(&client, job, "sum", "n").await, "1\n", "{mode}");
        assert_eq!(world.starts_of("made"), 2, "{mode}: nothing was made again");
        assert_eq!(log_of(&client, job, "made", 1).await, "made 1\n", "{mode}");
    }
}

async fn log_of(client: &Client, job: JobId, stage: &str, index: u32) -> String {
    let request = LogRequest {
        job,
        stage: stage.to_owned(),
        index,
        attempt: None,
        stream: LogStream::Stdout,
        follow: false,
        offset: 0,
    };
    let mut log = client.read_log(request);
    let mut text = Vec::new();
    while let Some(chunk) = log.next().await.unwrap() {
        text.extend_from_slice(&chunk.data);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_stay_with_the_last_executor_until_another_one_comes() {
    let world = World::new();
    let scheduler = world.scheduler("s", "memory:", &[]).await;
    let address = [scheduler.address()];
    let resources = ["--resource", "a=9", "--resource", "b=9"];
    let mut leaves = world.executor("leaves", "push", &address, &resources).await;
    let client = client(&address).await;
    ready(&client, 1).await;
    world.open("more");
    let job = client.submit(world.job(MAKES_AND_READS), None).await.unwrap().job;
    world.started("held", 1).await;
    client.drain_executor(v1::DrainExecutorRequest { stop: true, ..drain("leaves") }).await.unwrap();
    has_state(&client, "leaves", "draining").await;
    world.open("held");
    logged(&world, "leaves", "outputs here are still needed").await;
    leaves.assert_alive();
    // It can run nothing of what is left, so nothing but the outputs can go there.
    let _comes = world.executor("comes", "push", &address, &["--resource", "a=9"]).await;
    leaves.ended().await;
    let _reads = world.executor("reads", "push", &address, &["--resource", "b=9"]).await;
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "sum", "n").await, "1\n");
    assert_eq!(world.starts_of("made"), 2, "nothing was made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_told_to_end_hands_its_outputs_over_too() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let one = world.scheduler("one", &etcd.url(), &[]).await;
    let two = world.scheduler("two", &etcd.url(), &[]).await;
    let mut leaves = world.executor("leaves", "push", &[one.address()], &["--resource", "a=9"]).await;
    let client = client(&[two.address(), one.address()]).await;
    ready(&client, 1).await;
    world.open("more");
    let job = client.submit(world.job(MAKES_AND_READS), None).await.unwrap().job;
    let _stays = world.executor("stays", "push", &[two.address()], &["--resource", "b=9"]).await;
    world.started("held", 1).await;
    assert!(leaves.terminate().await.success());
    has_state(&client, "leaves", "stopped").await;
    world.open("held");
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "sum", "n").await, "1\n");
    assert_eq!(world.starts_of("made"), 2, "nothing was made again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_with_a_limit_leaves_in_time_and_one_that_is_taken_back_does_not() {
    let world = World::new();
    let scheduler = world.scheduler("s", "memory:", &[]).await;
    let address = [scheduler.address()];
    let mut leaves = world.executor("leaves", "push", &address, &["--cpus", "1"]).await;
    let client = client(&address).await;
    ready(&client, 1).await;
    let held = || world.job(r#"{name: held, run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}"#);
    let job = client.submit(held(), None).await.unwrap().job;
    world.started("main", 1).await;
    client.drain_executor(v1::DrainExecutorRequest { stop: true, ..drain("leaves") }).await.unwrap();
    has_state(&client, "leaves", "draining").await;
    client.drain_executor(v1::DrainExecutorRequest { undo: true, ..drain("leaves") }).await.unwrap();
    has_state(&client, "leaves", "ready").await;
    world.open("go");
    succeeded(&client, job).await;
    let next = client.submit(held(), None).await.unwrap().job;
    succeeded(&client, next).await;
    leaves.assert_alive();

    std::fs::remove_file(world.path("gates").join("go")).unwrap();
    let job = client.submit(held(), None).await.unwrap().job;
    world.started("main", 3).await;
    let wish = v1::DrainExecutorRequest { stop: true, timeout_ms: 1_000, ..drain("leaves") };
    client.drain_executor(wish).await.unwrap();
    leaves.ended().await;
    has_state(&client, "leaves", "stopped").await;
    let refused = client.drain_executor(drain("leaves")).await.unwrap_err();
    assert!(refused.to_string().contains("out of reach"), "{refused}");
    let _next = world.executor("next", "push", &address, &[]).await;
    world.open("go");
    succeeded(&client, job).await;
    let task = tasks(&client, job, "main").await.remove(0);
    assert_eq!((task.executor.as_str(), task.attempt), ("next", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_keeps_killing_executors_fails_and_the_others_go_on() {
    let world = World::new();
    let scheduler = world.scheduler("s", "memory:", &["--lost-after", "60s"]).await;
    let address = [scheduler.address()];
    // The task's parent is the supervisor, whose parent is the executor.
    let spec = world.job(
        r#"
        name: poison
        stages:
          poison:
            retries: {executor_lost: 2}
            run: |
              eval "$NOTE"
              kill -9 $(awk '/^PPid:/ { print $2 }' /proc/$PPID/status)
              sleep 100
          harmless: {tasks: 2, stop_after: never, run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}
        "#,
    );
    let mut executor = world.executor("e", "push", &address, &["--cpus", "3"]).await;
    let client = client(&address).await;
    ready(&client, 1).await;
    let job = client.submit(spec, None).await.unwrap().job;
    for deaths in 1..=3 {
        executor.ended().await;
        assert_eq!(world.starts_of("poison"), deaths);
        executor = world.executor("e", "push", &address, &["--cpus", "3"]).await;
    }
    world.open("go");
    let view = tokio::time::timeout(Duration::from_secs(60), client.wait(job)).await.unwrap().unwrap();
    assert_eq!(view.state(), v1::JobState::Failed);
    executor.assert_alive();
    assert_eq!(world.starts_of("poison"), 3, "its budget is spent");
    let failure = &view.failures[0];
    assert_eq!(
        (failure.stage.as_str(), failure.outcome(), failure.r#final),
        ("poison", v1::Outcome::ExecutorLost, true)
    );
    let harmless = tasks(&client, job, "harmless").await;
    assert!(harmless.iter().all(|task| task.state() == v1::TaskState::Successful), "{harmless:?}");
}
