//! The store's members die, lose quorum, stall, compact, and run full.

use muster_integration::cluster_of_processes::Plan;
use muster_integration::eventually;

use crate::scenario::{self, Scene};

#[test]
fn etcds_leader_is_killed_again_and_again() {
    let rounds = if muster_integration::is_soak() { 10 } else { 2 };
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        for _ in 0..rounds {
            let etcd = &mut scene.cluster.etcd;
            let leader = eventually("there is a leader", 60, || etcd.leader()).await;
            let term = etcd.members[leader].status().await.unwrap().term;
            etcd.members[leader].kill().unwrap();
            let next = eventually("another leader", 60, || etcd.leader()).await;
            assert_ne!(next, leader);
            eventually("its election is in force", 60, || async {
                (etcd.members[next].status().await?.term > term).then_some(())
            })
            .await;
            scene.load.progress(1).await;
            scene.cluster.etcd.members[leader].restart().await.unwrap();
        }
        scene.end().await;
    });
}
