//! A cluster of an earlier version becomes one of this version, member by member, while it works.
//!
//! The earlier binary is built by `make soak` from the commit in `integration/upgrade-from`, and named by
//! `MUSTER_UPGRADE_FROM`.

use std::path::PathBuf;

use muster_integration::cluster_of_processes::Plan;

use crate::scenario::{self, Scene};

#[test]
fn a_cluster_is_upgraded_member_by_member() {
    let Some(older) = std::env::var_os("MUSTER_UPGRADE_FROM").map(PathBuf::from) else {
        assert!(!muster_integration::is_soak(), "the soak builds the earlier version and names it");
        return eprintln!("SKIPPED: there is no binary of an earlier version; `make soak` builds one");
    };
    scenario::run(async |network| {
        let plan = Plan { older: Some(older.clone()), ..Plan::default() };
        let mut scene = Scene::start(network, &plan).await;
        for number in 0..scene.cluster.schedulers.len() {
            let scheduler = &mut scene.cluster.schedulers[number];
            scheduler.terminate().await;
            scheduler.older = None;
            scene.cluster.start_scheduler(number).await;
            scene.load.progress(2).await;
        }
        for number in 0..scene.cluster.executors.len() {
            scene.cluster.terminate_executor(number).await;
            scene.cluster.executors[number].older = None;
            scene.cluster.start_executor(number).await;
            scene.load.progress(2).await;
        }
        scene.end().await;
    });
}
