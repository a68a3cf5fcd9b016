//! Running ahead, with real executors and tasks: a slot begins its next task without hearing from a scheduler, and what waits
//! behind a task that takes longer than those before it runs elsewhere.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_client::JobId;
use muster_executor::{Executor, Mode};
use muster_integration::world::{World, client, ready, succeeded};
use muster_integration::{cluster, eventually, journal};
use muster_state::Memory;

/// One core, a slot for one task.
async fn executor(
    world: &World,
    id: &str,
    mode: Mode,
    scheduler: &muster_scheduler::Handle,
) -> muster_executor::Handle {
    Executor::start(cluster::executor_options(world, id, mode, 1, scheduler)).await.unwrap()
}

fn given_back(place: &Path, job: JobId) -> usize {
    let job = job.to_string();
    let is_one = |line: &&journal::Line| line.job == job && line.outcome.as_deref() == Some("OUTCOME_GIVEN_BACK");
    journal::read(place).iter().filter(is_one).count()
}

/// A launch that was admitted before the task before it had ended cannot have been made because of that end.
async fn a_slot_goes_on(mode: Mode) {
    cluster::logs();
    let world = World::new();
    let scheduler = cluster::scheduler("one", Arc::new(Memory::new())).await.unwrap();
    let executor = executor(&world, "e", mode, &scheduler).await;
    let client = client(&[scheduler.address()]).await;
    ready(&client, 1).await;
    let yaml = "name: short\nstages: [{name: a, run: ['true'], tasks: 400, resources: {cpu: 1}}]";
    let job = client.submit(world.job(yaml), None).await.unwrap().job;
    succeeded(&client, job).await;
    let mut lines = journal::read(&world.path("e"));
    lines.retain(|line| matches!(line.event.as_str(), "start" | "end"));
    let mut starts: Vec<_> = lines.iter().filter(|line| line.event == "start").collect();
    starts.sort_by_key(|line| line.boot_us);
    assert_eq!(starts.len(), 400, "each ran once");
    let ended_us = |of: &journal::Line| {
        let end = lines.iter().find(|line| line.event == "end" && line.index == of.index).unwrap();
        end.boot_us
    };
    let ahead = starts.windows(2).filter(|pair| pair[1].admitted_us < ended_us(pair[0])).count();
    assert!(ahead >= 40, "{ahead} of 400 were there before the slot was free");
    executor.stop().await;
    scheduler.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_begins_its_next_task_without_hearing_from_a_scheduler() {
    a_slot_goes_on(Mode::Push).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_of_an_executor_that_fetches_its_work_does_so_too() {
    a_slot_goes_on(Mode::Pull).await;
}

/// Tasks are short until the first executor is blocked: then they do not end there before it is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_task_that_does_not_end_runs_elsewhere() {
    cluster::logs();
    let world = World::new();
    let scheduler = cluster::scheduler("one", Arc::new(Memory::new())).await.unwrap();
    let first = executor(&world, "first", Mode::Push, &scheduler).await;
    let client = client(&[scheduler.address()]).await;
    ready(&client, 1).await;
    let block = world.path("gates").join("blocked");
    let yaml = "name: uneven\nstages:\n- name: a\n  tasks: 1000\n  resources: {cpu: 1}\n  run: |\n    \
                case $PWD in */first/*) while [ -e $GATES/blocked ]; do sleep 0.01; done;; esac\n";
    let job = client.submit(world.job(yaml), None).await.unwrap().job;
    let place = world.path("first");
    // Whether something waits at that moment is chance.
    for _ in 0..40 {
        let before = journal::starts(&place, job);
        eventually("its slot gets on", 60, || async { (journal::starts(&place, job) > before + 10).then_some(()) })
            .await;
        std::fs::write(&block, "").unwrap();
        let asked = tokio::time::timeout(Duration::from_secs(3), async {
            while given_back(&place, job) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if asked.await.is_ok() {
            break;
        }
        std::fs::remove_file(&block).unwrap();
    }
    assert!(given_back(&place, job) > 0, "what waited was given back");
    let second = executor(&world, "second", Mode::Pull, &scheduler).await;
    eventually("all but the one that is stuck are successful", 90, || async {
        (client.get_job(job).await.ok()?.tasks?.successful == 999).then_some(())
    })
    .await;
    std::fs::remove_file(&block).unwrap();
    let view = succeeded(&client, job).await;
    assert!(view.failures.is_empty(), "{:?}", view.failures);
    let starts = journal::starts(&place, job) + journal::starts(&world.path("second"), job);
    assert_eq!(starts, 1000, "nothing ran twice");
    first.stop().await;
    second.stop().await;
    scheduler.stop().await;
}
