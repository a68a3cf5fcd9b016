//! The store's members die, lose quorum, stall, compact, and run full.

use std::time::Duration;

use muster_integration::cluster_of_processes::{Cluster, Plan};
use muster_integration::eventually;
use muster_state::{Error, Key, Keyspace, Op, StateBackend as _, Txn, VALUE_BYTES_MAX};

use crate::scenario::{self, Scene};

/// How often a fault is repeated.
fn rounds(soak: u32, short: u32) -> u32 {
    if muster_integration::is_soak() { soak } else { short }
}

#[test]
fn etcds_leader_is_killed_again_and_again() {
    const EVERY: Duration = Duration::from_secs(5);
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for _ in 0..rounds(10, 2) {
            let next = tokio::time::Instant::now() + EVERY;
            let leader = kill_leader(&mut scene.cluster).await;
            scene.load.progress(1).await;
            scene.cluster.etcd.members[leader].restart().await.unwrap();
            tokio::time::sleep_until(next).await;
        }
        scenario::assert_undisturbed(&scene.end().await);
    });
}

/// Answers which member it was.
async fn kill_leader(cluster: &mut Cluster) -> usize {
    let etcd = &mut cluster.etcd;
    let leader = eventually("there is a leader", 60, || etcd.leader()).await;
    let term = etcd.members[leader].status().await.unwrap().term;
    etcd.members[leader].kill().unwrap();
    let next = eventually("there is another leader", 60, || etcd.leader()).await;
    assert_ne!(next, leader);
    eventually("its election is in force", 60, || async {
        (etcd.members[next].status().await?.term > term).then_some(())
    })
    .await;
    cluster.elected();
    leader
}

#[test]
fn etcd_loses_its_quorum_and_regains_it() {
    scenario::run(async |network| {
        let plan = Plan::default();
        let mut scene = Scene::start(network, &plan).await;
        for member in &mut scene.cluster.etcd.members[..2] {
            member.kill().unwrap();
        }
        assert!(scene.cluster.etcd.compact().await.is_err(), "one member of three decides nothing");
        scene.cluster.schedulers_away();
        tokio::time::sleep(plan.session_ttl * 2).await;
        for member in &mut scene.cluster.etcd.members[..2] {
            member.restart_unready().unwrap();
        }
        eventually("there is a leader", 60, || scene.cluster.etcd.leader()).await;
        scene.cluster.elected();
        scene.cluster.live_schedulers(3).await;
        scene.load.progress(3).await;
        scene.cluster.schedulers_back();
        scene.end().await;
    });
}

#[test]
fn etcd_is_compacted_every_second() {
    scenario::run(async |network| {
        let scene = Scene::start(network, &Plan::default()).await;
        let mut before = 0;
        for _ in 0..rounds(60, 8) {
            let compacted = scene.cluster.etcd.compact().await.unwrap();
            assert!(compacted > before, "{compacted} after {before}: work goes on");
            before = compacted;
            tokio::time::sleep(Duration::from_secs(1)).await;
            scene.load.progress(1).await;
        }
        scenario::assert_undisturbed(&scene.end().await);
    });
}

#[test]
fn a_live_sessions_lease_is_revoked() {
    scenario::run(async |network| {
        let scene = Scene::start(network, &Plan::default()).await;
        for round in 0..rounds(10, 3) {
            let owner = round as usize % 3;
            let session = scene.cluster.session_of(owner).await;
            assert!(scene.cluster.revoke(&session).await, "it had a lease");
            scene.load.progress(2).await;
            scene.cluster.live_schedulers(3).await;
            let again = scene.cluster.session_of(owner).await;
            assert_ne!(again, session, "it came back under another name");
        }
        let judged = scene.end().await;
        scenario::assert_undisturbed(&judged);
        scenario::assert_taken_over(&judged);
    });
}

/// As a slow disk does: each member stands still for a moment, again and again.
#[test]
fn etcds_members_stall_in_bursts() {
    const STALL: Duration = Duration::from_millis(700);
    const PAUSE: Duration = Duration::from_millis(400);
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        // Sessions run out meanwhile, and an executor is without a home until a write about it succeeds.
        scene.cluster.schedulers_away();
        for round in 0..rounds(60, 9) {
            let member = &mut scene.cluster.etcd.members[round as usize % 3];
            member.pause().unwrap();
            assert!(member.status().await.is_none(), "it stands still");
            tokio::time::sleep(STALL).await;
            member.resume().unwrap();
            tokio::time::sleep(PAUSE).await;
        }
        scene.cluster.elected();
        scene.cluster.live_schedulers(3).await;
        scene.load.progress(2).await;
        scene.cluster.schedulers_back();
        scene.end().await;
    });
}

/// Somebody else who uses the same etcd fills it, and makes room again later. Everything waits, and nothing is lost.
#[test]
fn etcds_quota_is_used_up() {
    /// More than fit into the quota.
    const VALUES: usize = 200;
    scenario::run(async |network| {
        // While there is no room, nobody can take anything over.
        let etcd = vec!["--quota-backend-bytes=16777216".to_owned()];
        let plan = Plan { etcd, takeover_within: None, ..Plan::default() };
        let mut scene = Scene::start(network, &plan).await;
        let cluster = &mut scene.cluster;
        let store = cluster.etcd.store("somebody-else");
        let mut refused = false;
        for number in 0..VALUES {
            let key = Key::new(Keyspace::JobPlans, format!("filler-{number}"));
            match store.put(key, vec![7; VALUE_BYTES_MAX].into()).await {
                Ok(_) | Err(Error::Unknown(_) | Error::Unavailable(_)) => {}
                Err(Error::NoSpace(_)) => {
                    refused = true;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(refused, "{VALUES} values did not fill it");
        assert!(!cluster.etcd.without_space().await.unwrap().is_empty(), "a member has raised the alarm");
        // Sessions cannot be renewed under a new name meanwhile, and nobody can register.
        cluster.schedulers_away();
        tokio::time::sleep(plan.session_ttl * 2).await;
        let all =
            Op::DeleteRange { keyspace: Keyspace::JobPlans, from: "filler-".to_owned(), to: "filler.".to_owned() };
        store.put_txn(Txn { ops: vec![all], ..Txn::default() }).await.unwrap();
        eventually("the alarm is disarmed", 60, || async {
            cluster.etcd.without_space().await.ok()?.is_empty().then_some(())
        })
        .await;
        scene.load.progress(3).await;
        scene.cluster.schedulers_back();
        scene.end().await;
    });
}
