//! A cluster of an earlier version becomes one of this version, member by member, while it works.
//!
//! The earlier binary is built by `make soak` from the commit in `integration/upgrade-from`, and named by
//! `MUSTER_UPGRADE_FROM`.

use std::path::{Path, PathBuf};

use muster_integration::cluster_of_processes::{Member, Plan};
use muster_integration::processes;
use muster_integration::world::succeeded;

use crate::scenario::{self, Scene};

fn runs(member: &Member, binary: &Path) {
    assert_eq!(member.program(), binary, "{}", member.name);
}

#[test]
fn a_cluster_is_upgraded_member_by_member() {
    let Some(older) = std::env::var_os("MUSTER_UPGRADE_FROM").map(PathBuf::from) else {
        assert!(!muster_integration::is_soak(), "the soak builds the earlier version and names it");
        return eprintln!("SKIPPED: there is no binary of an earlier version; `make soak` builds one");
    };
    let [older, newer] = [&older, processes::muster()].map(|binary| binary.canonicalize().unwrap());
    assert_ne!(std::fs::read(&older).unwrap(), std::fs::read(&newer).unwrap(), "they are two versions");
    scenario::run(async |network| {
        let plan = Plan { older: Some(older.clone()), ..Plan::default() };
        let mut scene = Scene::start(network, &plan).await;
        let cluster = &mut scene.cluster;
        cluster.schedulers.iter().chain(&cluster.executors).for_each(|member| runs(member, &older));
        // Written and started by the older version, and finished by the newer one.
        let spec = cluster.world.job(
            r#"
            name: both
            stages:
              wait: {tasks: 4, resources: {cpu: 0.1}, run: 'eval "$NOTE"; gate=both; eval "$WAIT"; echo 1 > $MUSTER_OUTPUT_DIR/n'}
              all: {inputs: {wait: all}, run: 'cat $MUSTER_INPUT_DIR/wait/*/n > $MUSTER_OUTPUT_DIR/n'}
            "#,
        );
        let both = cluster.client.submit(spec, None).await.unwrap().job;
        cluster.world.started("wait", 4).await;
        for number in 0..cluster.schedulers.len() {
            let scheduler = &mut cluster.schedulers[number];
            scheduler.terminate().await;
            scheduler.older = None;
            cluster.start_scheduler(number).await;
            runs(&cluster.schedulers[number], &newer);
            scene.load.progress(2).await;
        }
        cluster.executors.iter().for_each(|member| runs(member, &older));
        cluster.world.open("both");
        succeeded(&cluster.client, both).await;
        assert_eq!(cluster.world.starts_of("wait"), 4, "what ran went on");
        for number in 0..cluster.executors.len() {
            cluster.terminate_executor(number).await;
            cluster.executors[number].older = None;
            cluster.start_executor(number).await;
            runs(&cluster.executors[number], &newer);
            scene.load.progress(2).await;
        }
        cluster.schedulers.iter().for_each(|member| runs(member, &newer));
        let sum = cluster.world.output(&cluster.client, both, "all", "n").await;
        assert_eq!(sum, "1\n".repeat(4), "it can still be had");
        scene.end().await;
    });
}
