//! Schedulers that die, stop, and lose their connections.

use muster_integration::cluster_of_processes::Plan;

use crate::scenario::{self, Scene};

#[test]
fn a_scheduler_is_killed() {
    scenario::run(async |network| {
        let mut scene = Scene::start(network, &Plan::default()).await;
        let owner = scene.cluster.owner(scene.load.shuffle).await;
        scene.cluster.schedulers[owner].kill();
        scene.load.progress(3).await;
        scene.cluster.start_scheduler(owner).await;
        scene.end().await;
    });
}
