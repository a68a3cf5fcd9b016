//! Large tasks among small ones that never end, with real processes: room gathers for the large ones, wherever they are before
//! the small ones in line.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use muster_client::v1::JobState;
use muster_integration::world::{World, client, ready, succeeded};
use muster_state::testing::Etcd;

/// No task of the small job ends together with another, but by chance, so four cores are never free at once unless they are kept.
async fn large_ones_get_their_room(mode: &str) {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let scheduler = world.scheduler("one", &etcd.url(), &[]).await;
    let _executor = world.executor("e", mode, &[scheduler.address()], &["--cpus", "4"]).await;
    let client = client(&[scheduler.address()]).await;
    ready(&client, 1).await;
    let small = r#"
name: small
stages:
  small: {tasks: 50000, run: 'eval "$NOTE"; sleep 0.$((MUSTER_TASK_INDEX * 7 % 5 + 1))$((MUSTER_TASK_INDEX % 10))'}
"#;
    let small = client.submit(world.job(small), None).await.unwrap().job;
    world.started("small", 12).await;
    let large = "{name: large, priority: 1, tasks: 3, resources: {cpu: 4}, run: 'sleep 0.1'}";
    let large = client.submit(world.job(large), None).await.unwrap().job;
    succeeded(&client, large).await;
    let before = world.starts_of("small");
    world.started("small", before + 4).await;
    assert_eq!(client.get_job(small).await.unwrap().state(), JobState::Running, "it was not the end of the small ones");
    client.cancel_job(small, "enough").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_tasks_get_their_room_on_an_executor_that_is_sent_work() {
    large_ones_get_their_room("push").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_tasks_get_their_room_on_an_executor_that_fetches_its_work() {
    large_ones_get_their_room("pull").await;
}
