//! Proofs that the proofs can fail. Each guard of a promise has a scenario that is made for it, with messages held back
//! so that the guard alone stands between the fault and a broken promise. It runs twice: with the guard nothing may be
//! wrong, and with the guard left out the checker must find the rule broken that the guard is there for.

use std::cell::Cell;
use std::time::Duration;

use muster_client::JobId;
use muster_integration::checker::Rule;
use muster_integration::cluster_of_processes::{Cluster, Judged, Plan};
use muster_integration::network::Network;
use muster_integration::world::succeeded;
use muster_integration::{eventually, jobs, journal};

use crate::scenario;

/// Where messages are held back.
const GATE: &str = "held-back";
/// So long that nobody is declared lost by the way.
const LOST_AFTER: Duration = Duration::from_secs(30);

/// Runs a scenario with the guard and without it.
fn guard(point: &str, rule: Rule, scene: impl AsyncFn(Network, bool, &str) -> Judged) {
    for broken in [false, true] {
        // Points of a member are one text; the broken guard goes before the others.
        let points = if broken { format!("{point}=return;") } else { String::new() };
        scenario::run(async |network| {
            let judged = scene(network, broken, &points).await;
            if broken {
                assert!(judged.verdict.rules().contains(&rule), "{point} was not noticed: {}", judged.verdict);
            } else {
                judged.verdict.assert_clean();
            }
        });
    }
}

fn plan(schedulers: usize, push: usize) -> Plan {
    Plan { schedulers, push, pull: 0, lost_after: LOST_AFTER, ..Plan::default() }
}

/// Submits tasks that wait, each for its gate, to the first scheduler.
async fn submit_waiting(cluster: &Cluster, tasks: u32) -> JobId {
    let spec = format!(
        "{{name: w, stages: {{wait: {{tasks: {tasks}, run: 'eval \"$NOTE\"; gate=$MUSTER_TASK_INDEX; eval \"$WAIT\"'}}}}}}"
    );
    submit_to_first(cluster, &spec).await
}

async fn submit_to_first(cluster: &Cluster, yaml: &str) -> JobId {
    let mut first = jobs::client((cluster.schedulers[0].node.address, 7077).into()).await.unwrap();
    jobs::submit(&mut first, cluster.world.job(yaml), "").await.unwrap().parse().unwrap()
}

/// The first scheduler loses its session; the second one takes the job over.
async fn first_loses(cluster: &Cluster, job: JobId) {
    let session = cluster.session_of(0).await;
    assert!(cluster.revoke(&session).await, "it had a lease");
    eventually("the second scheduler owns the job", 60, || async { (cluster.owner(job).await == 1).then_some(()) })
        .await;
}

/// Waits until one of some members has logged something.
async fn logged(cluster: &Cluster, members: &[&str], what: &str) {
    let has = |member: &&str| cluster.world.log(member).contains(what);
    eventually(&format!("{members:?} log '{what}'"), 60, || async { members.iter().any(has).then_some(()) }).await;
}

/// A commit is on its way while its sender is superseded by a successor that has nothing to write yet.
#[test]
fn the_token_keeps_a_superseded_owners_commit_out() {
    guard("break-token-compare", Rule::Token, async |network, _, points| {
        let plan = plan(2, 1).failpoint("s0", format!("{points}hold-commit=return(FOLDER/{GATE})"));
        let mut cluster = Cluster::start(network, &plan).await;
        let job = submit_waiting(&cluster, 2).await;
        cluster.world.started("wait", 2).await;
        cluster.hold(GATE);
        cluster.world.open("0");
        cluster.held(GATE).await;
        // It does not tell the successor what the held commit says.
        cluster.stop_executor(0);
        first_loses(&cluster, job).await;
        cluster.release(GATE);
        cluster.live_schedulers(2).await;
        // What the first scheduler commits after that tells that the held commit has been decided.
        let after = submit_to_first(&cluster, "{name: after, tasks: 0, run: 'true'}").await;
        succeeded(&cluster.client, after).await;
        cluster.resume_executor(0);
        cluster.world.open("1");
        succeeded(&cluster.client, job).await;
        cluster.judge().await
    });
}

/// An owner's own commits arrive a second time, long after their successors.
#[test]
fn the_predecessor_keeps_an_owners_own_late_commits_out() {
    guard("break-predecessor-compare", Rule::Sequence, async |network, broken, points| {
        let repeated = format!("{points}repeat-commit=return;hold-repeated-commit=return(FOLDER/{GATE})");
        let cluster = Cluster::start(network, &plan(2, 1).failpoint("s0", repeated)).await;
        cluster.hold(GATE);
        let job = submit_waiting(&cluster, 3).await;
        for ended in 1..=2_u32 {
            cluster.world.open(&(ended - 1).to_string());
            eventually("its end is committed", 60, || async {
                (cluster.client.get_job(job).await.ok()?.tasks?.successful == ended).then_some(())
            })
            .await;
        }
        cluster.held(GATE).await;
        cluster.release(GATE);
        logged(
            &cluster,
            &["s0"],
            if broken { "a repeated commit was let in" } else { "a repeated commit was not let in" },
        )
        .await;
        if !broken {
            cluster.world.open("2");
            succeeded(&cluster.client, job).await;
        }
        cluster.judge().await
    });
}

/// A scheduler dies with its assignments on the way to the store. Who got a launch by then has gone, too.
#[test]
fn launches_wait_for_their_commit() {
    guard("break-launch-after-commit", Rule::StartAssigned, async |network, broken, points| {
        let plan = Plan { lost_after: Duration::from_secs(3), ..plan(2, 2) };
        let plan = plan.failpoint("s0", format!("{points}hold-commit=return(FOLDER/{GATE})"));
        let mut cluster = Cluster::start(network, &plan).await;
        // What the second stage needs is in the store by then.
        let spec = r#"
            name: two
            stages:
              first: {run: 'eval "$NOTE"; gate=first; eval "$WAIT"'}
              wait: {after: [first], run: 'eval "$NOTE"; gate=0; eval "$WAIT"'}
        "#;
        let job = submit_to_first(&cluster, spec).await;
        cluster.world.started("first", 1).await;
        cluster.hold(GATE);
        cluster.world.open("first");
        cluster.held(GATE).await;
        if broken {
            cluster.world.started("wait", 1).await;
            let name = job.to_string();
            let ran = |number: &usize| {
                let lines = journal::read(cluster.executors[*number].data_dir());
                lines.iter().any(|line| line.event == "start" && line.job == name && line.stage == 1)
            };
            let number = (0..2).find(ran).expect("it started on one of them");
            let name = cluster.executors[number].name.clone();
            cluster.kill_executor(number);
            cluster.executor_is(&name, "lost").await;
        }
        cluster.schedulers[0].kill();
        cluster.world.open("0");
        succeeded(&cluster.client, job).await;
        cluster.judge().await
    });
}

/// A superseded owner's launch arrives after its successor has asked.
#[test]
fn executors_refuse_a_superseded_owners_launch() {
    guard("break-executor-refusal", Rule::Fence, async |network, broken, points| {
        // The successor's launch comes later still: by its number, too, the executor would know the other one for old.
        const LATER: &str = "held-back-longer";
        let plan = plan(2, 1)
            .failpoint("s0", format!("hold-launch=return(FOLDER/{GATE})"))
            .failpoint("s1", format!("hold-launch=return(FOLDER/{LATER})"))
            .failpoint("push0", points);
        let cluster = Cluster::start(network, &plan).await;
        cluster.hold(GATE);
        cluster.hold(LATER);
        let job = submit_waiting(&cluster, 1).await;
        cluster.held(GATE).await;
        first_loses(&cluster, job).await;
        cluster.held(LATER).await;
        cluster.release(GATE);
        if broken {
            cluster.world.started("wait", 1).await;
        } else {
            logged(&cluster, &["push0"], "launch refused").await;
        }
        cluster.release(LATER);
        cluster.world.open("0");
        succeeded(&cluster.client, job).await;
        cluster.judge().await
    });
}

/// A scheduler dies with a result on the way to the store, which its executor keeps for the successor.
#[test]
fn results_are_acknowledged_when_they_are_committed() {
    // With the guard, the executor writes its result down and nothing more.
    let written_with_guard = Cell::new(0);
    guard("break-acknowledge-after-commit", Rule::RunningKept, async |network, broken, points| {
        let plan = plan(2, 1).failpoint("s0", format!("{points}hold-commit=return(FOLDER/{GATE})"));
        let mut cluster = Cluster::start(network, &plan).await;
        let job = submit_waiting(&cluster, 2).await;
        cluster.world.started("wait", 2).await;
        let outbox = cluster.executors[0].data_dir().join("outbox.log");
        let length = || std::fs::metadata(&outbox).map_or(0, |metadata| metadata.len());
        let before = length();
        cluster.hold(GATE);
        cluster.world.open("0");
        cluster.held(GATE).await;
        if broken {
            eventually("the executor writes that its result was acknowledged", 60, || async {
                (length() - before > written_with_guard.get()).then_some(())
            })
            .await;
        } else {
            written_with_guard.set(length() - before);
        }
        cluster.schedulers[0].kill();
        cluster.world.open("1");
        succeeded(&cluster.client, job).await;
        cluster.judge().await
    });
}

/// An executor is out of reach for a while, and does its work.
#[test]
fn silence_is_no_evidence() {
    guard("break-silence", Rule::RunningKept, async |network, broken, points| {
        // The only scheduler owns the job, and is the home that hears the silence.
        let mut cluster = Cluster::start(network, &plan(1, 2).failpoint("s0", points)).await;
        let job = submit_waiting(&cluster, 8).await;
        cluster.world.started("wait", 8).await;
        cluster.cut_executor(0);
        logged(&cluster, &["s0"], "executor is out of reach executor=\"push0\"").await;
        for gate in 0..8 {
            cluster.world.open(&gate.to_string());
        }
        if broken {
            cluster.world.started("wait", 9).await;
        }
        assert!(cluster.heal_executor(0) > 0, "packets were dropped");
        succeeded(&cluster.client, job).await;
        cluster.judge().await
    });
}
