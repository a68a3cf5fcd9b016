//! A store that is restored from a backup under a running cluster: noticed, nothing done in it, and taken on by an operator.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::process::{Command, Output};

use muster_client::{Client, Error, JobId};
use muster_integration::processes::{Process, muster};
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_integration::{eventually, journal};
use muster_proto::v1;
use muster_state::testing::Etcd;

/// Two tasks that wait for a gate each, and a sum.
fn waiting(world: &World) -> v1::JobSpec {
    world.job(
        r#"
        name: waiting
        stages:
          wait:
            tasks: 2
            run: |
              eval "$NOTE"
              gate=$MUSTER_TASK_INDEX; eval "$WAIT"
              echo $MUSTER_TASK_INDEX > $MUSTER_OUTPUT_DIR/n
          sum:
            inputs: {wait: all}
            run: |
              cat $MUSTER_INPUT_DIR/wait/*/n | awk '{ s += $1 } END { print s }' > $MUSTER_OUTPUT_DIR/n
        "#,
    )
}

fn short(world: &World) -> v1::JobSpec {
    world.job("name: short\nstages: {only: {run: 'true'}}")
}

async fn submitted(client: &Client, spec: v1::JobSpec) -> JobId {
    client.submit(spec, None).await.unwrap().job
}

fn admin(scheduler: &Process, arguments: &[&str]) -> Output {
    Command::new(muster())
        .args(["--schedulers", &scheduler.address().to_string(), "--output", "json", "admin"])
        .args(arguments)
        .env_clear()
        .output()
        .unwrap()
}

/// A job of which the backup knows that its tasks run, and of which much happens afterwards; and jobs that the backup does not know.
struct Before {
    waiting: JobId,
    unknown: JobId,
    /// One more of those, whose task would run for ever.
    endless: JobId,
}

/// Enough jobs that the store's revision is far beyond the backup's.
const LATER_JOBS: usize = 10;

async fn run_on_after_a_backup(world: &World, etcd: &Etcd, client: &Client) -> Before {
    let job = submitted(client, waiting(world)).await;
    world.started("wait", 2).await;
    eventually("both tasks run, and the store knows", 30, || async {
        (client.get_job(job).await.ok()?.tasks?.running == 2).then_some(())
    })
    .await;
    etcd.back_up(&world.path("backup")).unwrap();
    world.open("0");
    eventually("the first task's result is accepted", 30, || async {
        (client.get_job(job).await.ok()?.tasks?.successful == 1).then_some(())
    })
    .await;
    let mut unknown = job;
    for _ in 0..LATER_JOBS {
        unknown = submitted(client, short(world)).await;
        succeeded(client, unknown).await;
    }
    let endless = world.job(r#"{name: endless, run: 'eval "$NOTE"; gate=never; eval "$WAIT"'}"#);
    let endless = submitted(client, endless).await;
    world.started("main", 1).await;
    Before { waiting: job, unknown, endless }
}

async fn in_safe_mode(client: &Client) -> String {
    eventually("safe mode", 30, || async {
        let store = client.store().await.ok()?;
        Some(store.safe_mode).filter(|why| !why.is_empty())
    })
    .await
}

/// Nothing is accepted or launched, and it is said why.
async fn nothing_is_done(world: &World, client: &Client, before: &Before) {
    let starts = world.starts();
    match client.submit(short(world), None).await {
        Err(Error::Precondition(why)) => {
            assert!(why.contains("safe mode") && why.contains("muster admin recover"), "{why}");
        }
        other => panic!("a submit in safe mode: {other:?}"),
    }
    let asked = client.get_job(before.waiting).await.expect_err("its owner does nothing").to_string();
    assert!(asked.contains("safe mode"), "{asked}");
    eventually("an explanation says so", 30, || async {
        let job_id = before.waiting.to_string();
        let told = client.explain_page(v1::ExplainRequest { job_id, ..Default::default() }).await.ok()?;
        told.reasons.iter().any(|reason| reason.kind() == v1::ReasonKind::SafeMode).then_some(())
    })
    .await;
    assert_eq!(world.starts(), starts);
}

/// Every scheduler has noticed the new epoch.
async fn trusted_again(schedulers: &[SocketAddr]) {
    for address in schedulers {
        let client = client(&[*address]).await;
        eventually("the store is trusted again", 30, || async {
            let store = client.store().await.ok()?;
            (store.epoch == 2 && store.safe_mode.is_empty()).then_some(())
        })
        .await;
    }
}

/// What the backup knew goes on, what it did not know is gone, and each task has one result.
async fn goes_on_from_the_backup(world: &World, client: &Client, before: &Before) {
    // Numbers of the new epoch begin here: what was given since the backup is not given again.
    const FIRST: u32 = (1 << 20) + 1;
    world.open("1");
    succeeded(client, before.waiting).await;
    assert_eq!(world.output(client, before.waiting, "sum", "n").await, "1\n");
    let waited = tasks(client, before.waiting, "wait").await;
    let attempts: Vec<u32> = waited.iter().map(|task| task.attempt).collect();
    // The first one's result was accepted after the backup. It ran again if the executor had forgotten it since, and was
    // taken a second time, as the only one of this epoch, if not. The second one went on all the time.
    let starts = world.starts().into_iter().filter(|(task, _)| task.starts_with("wait/"));
    let starts: Vec<Vec<u32>> = starts.map(|(_, attempts)| attempts).collect();
    match attempts[..] {
        [FIRST, 1] => assert_eq!(starts, [vec![1, FIRST], vec![1]]),
        [1, 1] => assert_eq!(starts, [vec![1], vec![1]]),
        _ => panic!("{waited:?}"),
    }
    let sum = tasks(client, before.waiting, "sum").await;
    assert_eq!(sum.iter().map(|task| task.attempt).collect::<Vec<_>>(), [FIRST], "{sum:?}");
    assert!(matches!(client.get_job(before.unknown).await, Err(Error::NotFound(_))));
    eventually("what runs of a job that the store does not know is ended", 30, || async {
        let endless = before.endless.to_string();
        let ended = |line: &journal::Line| line.event == "end" && line.job == endless;
        journal::read(&world.path("e1")).iter().any(ended).then_some(())
    })
    .await;
    succeeded(client, submitted(client, short(world)).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_schedulers_on_a_restored_store_are_told_by_an_executor_and_wait_for_an_operator() {
    for mode in ["push", "pull"] {
        let world = World::new();
        let mut etcd = Etcd::start().await.unwrap();
        let mut first = world.scheduler("first", &etcd.url(), &[]).await;
        let address = first.address();
        let _executor = world.executor("e1", mode, &[address], &["--cpus", "4"]).await;
        let client = client(&[address]).await;
        ready(&client, 1).await;
        let before = run_on_after_a_backup(&world, &etcd, &client).await;
        first.kill();
        etcd.restore(&world.path("backup")).await.unwrap();
        // Where the executor looks for it. It knows nothing of what was before.
        let second = world.scheduler("second", &etcd.url(), &["--listen", &address.to_string()]).await;
        let why = in_safe_mode(&client).await;
        assert!(why.contains("executor e1") && why.contains("revision"), "{why}");
        nothing_is_done(&world, &client, &before).await;
        // One that starts now finds it written down.
        let third = world.scheduler("third", &etcd.url(), &[]).await;
        let at_third = muster_integration::world::client(&[third.address()]).await;
        assert_eq!(in_safe_mode(&at_third).await, why);

        let refused = admin(&second, &["recover"]);
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("--yes"), "{refused:?}");
        assert_eq!(in_safe_mode(&client).await, why, "nothing was done");
        let recovered = admin(&third, &["recover", "--yes"]);
        assert!(recovered.status.success(), "{recovered:?}");
        let answer: serde_json::Value = serde_json::from_slice(&recovered.stdout).unwrap();
        assert_eq!((answer["epoch"].as_u64(), answer["safe_mode"].as_str()), (Some(2), Some(why.as_str())));

        trusted_again(&[second.address(), third.address()]).await;
        goes_on_from_the_backup(&world, &client, &before).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_schedulers_notice_by_themselves_that_the_store_has_gone_back() {
    let world = World::new();
    let mut etcd = Etcd::start().await.unwrap();
    let schedulers =
        [world.scheduler("first", &etcd.url(), &[]).await, world.scheduler("second", &etcd.url(), &[]).await];
    let addresses = schedulers.each_ref().map(Process::address);
    let _executor = world.executor("e1", "push", &addresses, &["--cpus", "4"]).await;
    let client = client(&addresses).await;
    ready(&client, 1).await;
    let before = run_on_after_a_backup(&world, &etcd, &client).await;
    etcd.restore(&world.path("backup")).await.unwrap();
    let why = in_safe_mode(&client).await;
    nothing_is_done(&world, &client, &before).await;
    let answer = client.recover().await.unwrap();
    assert_eq!(answer.epoch, 2);
    assert!(why.contains("has seen"), "{why}");
    trusted_again(&addresses).await;
    goes_on_from_the_backup(&world, &client, &before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_that_nobody_needed_disturbs_nothing_that_runs() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let schedulers =
        [world.scheduler("first", &etcd.url(), &[]).await, world.scheduler("second", &etcd.url(), &[]).await];
    let addresses = schedulers.each_ref().map(Process::address);
    let _push = world.executor("pushed", "push", &addresses, &["--cpus", "1"]).await;
    let _pull = world.executor("pulling", "pull", &addresses, &["--cpus", "1"]).await;
    let client = client(&addresses).await;
    ready(&client, 2).await;
    let job = submitted(&client, waiting(&world)).await;
    world.started("wait", 2).await;
    let answer = client.recover().await.unwrap();
    assert_eq!((answer.epoch, answer.safe_mode.as_str()), (2, ""));
    trusted_again(&addresses).await;
    world.open("0");
    world.open("1");
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "sum", "n").await, "1\n");
    assert_eq!(world.starts().into_values().collect::<Vec<_>>(), [vec![1], vec![1]]);
}
