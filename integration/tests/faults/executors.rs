//! Executors that die, stop, and lose their connections, for shorter and longer than `lost_after`.

use muster_integration::cluster_of_processes::Plan;

use crate::scenario::{self, Scene};

#[test]
fn an_executor_is_cut_off_until_it_is_lost_and_comes_back() {
    scenario::run(async |network| {
        let scene = Scene::start(network, &Plan::default()).await;
        let cluster = &scene.cluster;
        let node = cluster.executors[cluster.executor("push0")].node.clone();
        cluster.cut(&node, &cluster.scheduler_nodes());
        cluster.executor_is("push0", "lost").await;
        scene.load.progress(3).await;
        assert!(cluster.heal(&node, &cluster.scheduler_nodes()) > 0, "packets were dropped");
        cluster.executor_is("push0", "ready").await;
        scene.end().await;
    });
}
