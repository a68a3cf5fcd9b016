//! What tasks need of their executor, with real executors and tasks: labels decide where they run, and each has devices of its own.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_client::JobId;
use muster_executor::{Executor, Mode};
use muster_integration::world::{World, client, ready, succeeded};
use muster_integration::{cluster, eventually, journal};
use muster_state::Memory;

async fn executor(
    world: &World,
    (id, zone, mode): (&str, &str, Mode),
    devices: &[&str],
    scheduler: &muster_scheduler::Handle,
) -> muster_executor::Handle {
    let mut options = cluster::executor_options(world, id, mode, 4, scheduler);
    options.labels.insert("zone".to_owned(), zone.to_owned());
    if !devices.is_empty() {
        let names = devices.iter().map(|&name| name.to_owned()).collect();
        options.devices.insert("gpu".to_owned(), names);
    }
    Executor::start(options).await.unwrap()
}

/// Which stages of a job an executor has started tasks of, and how many in all.
fn ran(world: &World, id: &str, job: JobId) -> (BTreeSet<u32>, usize) {
    let job = job.to_string();
    let starts: Vec<_> =
        journal::read(&world.path(id)).into_iter().filter(|line| line.event == "start" && line.job == job).collect();
    (starts.iter().map(|line| line.stage).collect(), starts.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_where_their_labels_say_on_devices_of_their_own() {
    cluster::logs();
    let world = World::new();
    let scheduler = cluster::scheduler("one", Arc::new(Memory::new())).await.unwrap();
    let a = executor(&world, ("a", "eu-1", Mode::Push), &["0", "3"], &scheduler).await;
    let b = executor(&world, ("b", "eu-2", Mode::Pull), &[], &scheduler).await;
    let client = client(&[scheduler.address()]).await;
    ready(&client, 2).await;
    // A task that finds its device locked by another fails, and with it the job. The first waits for a second one beside it.
    let job = client
        .submit(
            world.job(
                r#"
name: labelled
placement: {require: {zone: [eu-1, eu-2]}}
stages:
  cards:
    tasks: 12
    run: |
      exec 9> "$GATES/device.$MUSTER_RESOURCE_gpu"
      flock -n 9
      until [ -e "$GATES/device.0" ] && [ -e "$GATES/device.3" ]; do sleep 0.02; done
      echo "$MUSTER_RESOURCE_gpu" > "$MUSTER_OUTPUT_DIR/gpu"
    resources: {cpu: 500m, gpu: 1}
  elsewhere:
    tasks: 4
    run: 'true'
    placement: {require: {zone: {not: eu-1}}}
  together:
    inputs: {cards: all}
    run: cat "$MUSTER_INPUT_DIR"/cards/*/gpu | sort -u > "$MUSTER_OUTPUT_DIR/devices"
    placement: {require: {zone: eu-2}}
"#,
            ),
            None,
        )
        .await
        .unwrap()
        .job;
    succeeded(&client, job).await;
    assert_eq!(world.output(&client, job, "together", "devices").await, "0\n3\n", "both were in use");
    assert_eq!(ran(&world, "a", job), ([0].into(), 12));
    assert_eq!(ran(&world, "b", job), ([1, 2].into(), 5));
    a.stop().await;
    b.stop().await;
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_executor_meets_waits_and_says_so_until_one_comes() {
    cluster::logs();
    let world = World::new();
    let scheduler = cluster::scheduler("one", Arc::new(Memory::new())).await.unwrap();
    let a = executor(&world, ("a", "eu-1", Mode::Push), &[], &scheduler).await;
    let client = client(&[scheduler.address()]).await;
    ready(&client, 1).await;
    let yaml = "name: far\nrun: 'true'\nplacement: {require: {zone: mars}}";
    let job = client.submit(world.job(yaml), None).await.unwrap().job;
    let reason = eventually("the job says why it waits", 20, || async {
        client
            .get_job(job)
            .await
            .ok()?
            .stages
            .first()
            .map(|stage| stage.reason.clone())
            .filter(|reason| !reason.is_empty())
    })
    .await;
    assert_eq!(reason, "no executor has the labels required: zone = mars (0 of 1)");
    let b = executor(&world, ("b", "mars", Mode::Pull), &[], &scheduler).await;
    succeeded(&client, job).await;
    assert_eq!((ran(&world, "a", job).1, ran(&world, "b", job).1), (0, 1));
    a.stop().await;
    b.stop().await;
    scheduler.stop().await;
}
