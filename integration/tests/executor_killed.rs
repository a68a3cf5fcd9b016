//! Executors that are killed: what is made again, and what is not.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::time::Duration;

use muster_client::{Client, JobId};
use muster_integration::checker::{self, Evidence, Outage, Outages, Rule, Verdict};
use muster_integration::processes::Process;
use muster_integration::recorder::Etcd as Recorder;
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_integration::{eventually, journal, recorder};
use muster_state::testing::Etcd;

/// The tasks (`stage/index`) of a stage whose accepted result lies on an executor.
async fn made_by(client: &Client, job: JobId, stage: &str, executor: &str) -> BTreeSet<String> {
    let tasks = tasks(client, job, stage).await;
    tasks.iter().filter(|task| task.executor == executor).map(|task| format!("{stage}/{}", task.index)).collect()
}

/// An executor that is away for so long is lost.
const LOST_AFTER: Duration = Duration::from_secs(2);

/// Judges what happened when the executor `lost` was killed at a time, and `kept` was not. It must be clean, and must not
/// be if the kill is not known.
async fn judge(world: &World, recorder: Recorder, killed_at_us: u64) -> Verdict {
    let mut evidence: Evidence = world.evidence(recorder.finish().await.unwrap(), &["kept", "lost"]);
    evidence.scenario.killed.insert("lost".to_owned());
    evidence.scenario.outages = Some(Outages { times: Vec::new(), lost_after: LOST_AFTER });
    assert_eq!(checker::check(&evidence).rules(), BTreeSet::from([Rule::LossDeclared]));
    let outage = Outage { executor: "lost".to_owned(), from_us: killed_at_us, until_us: None };
    evidence.scenario.outages = Some(Outages { times: vec![outage], lost_after: LOST_AFTER });
    let verdict = checker::check(&evidence);
    verdict.assert_clean();
    verdict
}

async fn state_of(client: &Client, executor: &str) -> Option<String> {
    let views = client.list_executors().await.ok()?;
    views.into_iter().find(|view| view.executor_id == executor).map(|view| view.state)
}

/// `used` is read and done with; `needed` lies on both executors, by a barrier, and is read last; `held` keeps the job
/// from going on until the test has done its work.
const LOSING: &str = r#"
name: losing
stages:
  used: {tasks: 3, resources: {b: 1, cpu: 0.1}, run: 'eval "$NOTE"; echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/n'}
  user:
    tasks: 3
    inputs: {used: each}
    resources: {a: 1, cpu: 0.1}
    run: 'eval "$NOTE"; cat $MUSTER_INPUT_DIR/used/*/n > $MUSTER_OUTPUT_DIR/n'
  needed:
    tasks: 4
    after: [user]
    run: |
      eval "$NOTE"
      while [ "$(grep -c ' needed/' "$STARTS")" -lt 4 ]; do sleep 0.02; done
      echo $((100 * MUSTER_TASK_INDEX)) > $MUSTER_OUTPUT_DIR/n
  held: {after: [needed], resources: {a: 1, cpu: 0.1}, run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}
  sum:
    inputs: {user: all, needed: all}
    after: [held]
    run: |
      eval "$NOTE"
      cat $MUSTER_INPUT_DIR/*/*/n | awk '{ s += $1 } END { print s }' > $MUSTER_OUTPUT_DIR/n
"#;

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_are_lost_and_still_needed_are_made_again_and_only_they() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "default");
    let scheduler = world.scheduler("s", &etcd.url(), &["--lost-after", "2s"]).await;
    let address = [scheduler.address()];
    let _kept = world.executor("kept", "push", &address, &["--resource", "a=9"]).await;
    let mut lost = world.executor("lost", "push", &address, &["--resource", "b=9"]).await;
    let client = client(&address).await;
    ready(&client, 2).await;
    let job = client.submit(world.job(LOSING), None).await.unwrap().job;
    world.started("held", 1).await;
    assert_eq!(made_by(&client, job, "used", "lost").await.len(), 3, "and their reader is done");
    let again = made_by(&client, job, "needed", "lost").await;
    assert_eq!(again.len(), 2, "two on each, by the barrier: {again:?}");
    let before = world.starts();
    assert!(before.values().all(|attempts| *attempts == [1]), "{before:?}");

    let killed_at_us = recorder::boot_us();
    lost.kill();
    eventually("the executor is declared lost", 20, || async {
        (state_of(&client, "lost").await? == "lost").then_some(())
    })
    .await;
    // Before anybody reads them: the job knows what it needs.
    world.started("needed", 6).await;
    world.open("go");
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "sum", "n").await, format!("{}\n", 3 + 600));
    for (task, attempts) in world.starts() {
        let expected = if again.contains(&task) { vec![1, 2] } else { vec![1] };
        assert_eq!(attempts, expected, "{task}");
    }
    let verdict = judge(&world, recorder, killed_at_us).await;
    assert_eq!(verdict.statistics.run_more_than_once, 2, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn running_tasks_of_a_lost_executor_run_again_elsewhere() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let recorder = Recorder::start(&etcd.endpoints(), "default");
    let scheduler = world.scheduler("s", &etcd.url(), &["--lost-after", "2s"]).await;
    let address = [scheduler.address()];
    let _kept = world.executor("kept", "pull", &address, &[]).await;
    let mut lost = world.executor("lost", "pull", &address, &[]).await;
    let client = client(&address).await;
    ready(&client, 2).await;
    let spec = world.job(r#"{name: r, tasks: 4, run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}"#);
    let job = client.submit(spec, None).await.unwrap().job;
    world.started("main", 4).await;
    // A task may note its start before its executor does.
    let doomed = eventually("its journal has both starts", 20, || async {
        let starts = journal_starts(&lost);
        (starts.len() == 2).then_some(starts)
    })
    .await;
    let killed_at_us = recorder::boot_us();
    lost.kill();
    eventually("the executor is declared lost", 20, || async {
        (state_of(&client, "lost").await? == "lost").then_some(())
    })
    .await;
    world.open("go");
    let view = succeeded(&client, job).await;
    assert_eq!(view.tasks.map(|counts| counts.successful), Some(4));
    for (task, attempts) in world.starts() {
        let index: u32 = task.split_once('/').expect("stage/index").1.parse().expect("a number");
        let expected = if doomed.contains(&index) { vec![1, 2] } else { vec![1] };
        assert_eq!(attempts, expected, "{task}");
    }
    let verdict = judge(&world, recorder, killed_at_us).await;
    assert_eq!((verdict.statistics.accepted, verdict.statistics.run_more_than_once), (4, 2), "{verdict}");
}

fn journal_starts(executor: &Process) -> BTreeSet<u32> {
    journal::read(&executor.data_dir).iter().filter(|line| line.event == "start").map(|line| line.index).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_comes_back_serves_what_it_had_made() {
    for mode in ["push", "pull"] {
        let world = World::new();
        let scheduler = world.scheduler("s", "memory:", &["--lost-after", "60s"]).await;
        let address = [scheduler.address()];
        let mut executor = world.executor("e", mode, &address, &[]).await;
        let client = client(&address).await;
        let spec = world.job(
            r#"
            name: back
            stages:
              made: {tasks: 4, run: 'eval "$NOTE"; echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/n'}
              held: {after: [made], run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}
              sum:
                inputs: {made: all}
                after: [held]
                run: |
                  eval "$NOTE"
                  cat $MUSTER_INPUT_DIR/made/*/n | awk '{ s += $1 } END { print s }' > $MUSTER_OUTPUT_DIR/n
            "#,
        );
        let job = client.submit(spec, None).await.unwrap().job;
        world.started("held", 1).await;
        executor.kill();
        let executor = world.executor("e", mode, &address, &[]).await;
        world.open("go");
        succeeded(&client, job).await;
        assert_eq!(world.output(&client, job, "sum", "n").await, "6\n");
        // What it was running ended with it, and what it had made was not made again.
        for (task, attempts) in world.starts() {
            let expected = if task == "held/0" { vec![1, 2] } else { vec![1] };
            assert_eq!(attempts, expected, "{mode}: {task}");
        }
        let lives: BTreeSet<u64> = journal::read(&executor.data_dir).iter().map(|line| line.incarnation).collect();
        assert_eq!(lives.len(), 2, "{mode}: {lives:?}");
    }
}
