//! One executor, two schedulers that want more of it than there is: each gets its part, whoever came first.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::sync::Arc;

use muster_client::{Client, JobId};
use muster_executor::{Executor, Mode};
use muster_integration::world::{World, client, ready, succeeded};
use muster_integration::{cluster, eventually, journal};
use muster_scheduler::Handle;
use muster_state::{Memory, StateBackend};

struct Shared {
    world: World,
    schedulers: [Handle; 2],
    clients: [Client; 2],
    executor: muster_executor::Handle,
}

impl Shared {
    /// Four cores, and whether anything may wait for them there.
    async fn start(mode: Mode, waits: bool) -> Self {
        cluster::logs();
        let world = World::new();
        let state: Arc<dyn StateBackend> = Arc::new(Memory::new());
        let one = cluster::scheduler("one", Arc::clone(&state)).await.unwrap();
        let two = cluster::scheduler("two", Arc::clone(&state)).await.unwrap();
        let mut options = cluster::executor_options(&world, "e", mode, 4, &one);
        if !waits {
            options.backlog = 0;
        }
        let executor = Executor::start(options).await.unwrap();
        let clients = [client(&[one.address()]).await, client(&[two.address()]).await];
        for client in &clients {
            ready(client, 1).await;
        }
        Self { world, schedulers: [one, two], clients, executor }
    }

    async fn submit(&self, to: usize, tasks: u32, cpu: f64, run: &str) -> JobId {
        self.submit_in("default", to, tasks, cpu, run).await
    }

    async fn submit_in(&self, namespace: &str, to: usize, tasks: u32, cpu: f64, run: &str) -> JobId {
        let yaml = format!(
            "name: j{to}\nnamespace: {namespace}\nstages: [{{name: a, run: '{run}', tasks: {tasks}, resources: {{cpu: {cpu}}}}}]"
        );
        self.clients[to].submit(self.world.job(&yaml), None).await.unwrap().job
    }

    /// The jobs whose tasks were started, in that order.
    fn starts(&self) -> Vec<String> {
        let mut starts = journal::read(&self.world.path("e"));
        starts.retain(|line| line.event == "start");
        starts.sort_by_key(|line| line.boot_us);
        starts.into_iter().map(|line| line.job).collect()
    }

    async fn started(&self, job: JobId, count: usize) {
        let job = job.to_string();
        let count_now = || self.starts().iter().filter(|of| **of == job).count();
        eventually(&format!("{count} tasks are started"), 60, async || (count_now() >= count).then_some(())).await;
    }

    async fn stop(self) {
        self.executor.stop().await;
        for scheduler in self.schedulers {
            scheduler.stop().await;
        }
    }
}

/// A job that would fill the executor for long, and then a smaller one of another scheduler: of what becomes free, that one
/// gets its half from the beginning.
async fn who_comes_later_gets_its_part(mode: Mode, waits: bool) {
    const SLOW: &str = "sleep 0.1";
    let shared = Shared::start(mode, waits).await;
    let large = shared.submit(0, 1000, 1.0, SLOW).await;
    shared.started(large, 8).await;
    let before = shared.starts().len();
    let small = shared.submit(1, 20, 1.0, SLOW).await;
    succeeded(&shared.clients[1], small).await;
    let starts = shared.starts();
    let last = starts.iter().rposition(|job| *job == small.to_string()).unwrap();
    let others = starts[before..last].iter().filter(|job| **job == large.to_string()).count();
    // As many as its own, and what began while it was on its way: four slots, some rounds.
    assert!(others <= 20 + 30, "{others} of the first job's tasks were started before the last of 20");
    shared.clients[0].cancel_job(large, "enough").await.unwrap();
    shared.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_gets_its_part_by_waiting_there() {
    who_comes_later_gets_its_part(Mode::Push, true).await;
}

/// Nothing can wait there: what becomes free is found by a reservation, or never.
#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_gets_its_part_by_reserving() {
    who_comes_later_gets_its_part(Mode::Push, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_later_gets_its_part_by_polls() {
    who_comes_later_gets_its_part(Mode::Pull, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn room_gathers_for_another_schedulers_large_task() {
    let shared = Shared::start(Mode::Push, false).await;
    let small = shared.submit(0, 2000, 1.0, "sleep 0.1").await;
    shared.started(small, 8).await;
    let large = shared.submit(1, 1, 4.0, "true").await;
    succeeded(&shared.clients[1], large).await;
    let view = shared.clients[0].get_job(small).await.unwrap();
    assert_eq!(view.state(), muster_proto::v1::JobState::Running, "it did not have to wait for the end of the others");
    shared.clients[0].cancel_job(small, "enough").await.unwrap();
    shared.stop().await;
}

/// One namespace has jobs at both schedulers, another one at one of them: each gets its part of the executor, by weight.
async fn a_namespace_gets_its_part(weight: u32, most_others: usize) {
    const SLOW: &str = "sleep 0.1";
    const ITS: u32 = 60;
    let shared = Shared::start(Mode::Push, true).await;
    let rules = muster_client::v1::NamespaceRules { weight: Some(weight), ..Default::default() };
    shared.clients[0].set_namespace("late", rules).await.unwrap();
    let many = [shared.submit(0, 1000, 1.0, SLOW).await, shared.submit(1, 1000, 1.0, SLOW).await];
    for job in many {
        shared.started(job, 8).await;
    }
    let late = shared.submit_in("late", 1, ITS, 1.0, SLOW).await;
    shared.started(late, 1).await;
    let before = shared.starts().len();
    succeeded(&shared.clients[1], late).await;
    let starts = shared.starts();
    let last = starts.iter().rposition(|job| *job == late.to_string()).unwrap();
    let others = starts[before..last].iter().filter(|job| **job != late.to_string()).count();
    assert!(others <= most_others, "{others} of the others' tasks were started before the last of {ITS}");
    for (client, job) in shared.clients.iter().zip(many) {
        client.cancel_job(job, "enough").await.unwrap();
    }
    shared.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_gets_its_part_at_whichever_schedulers_others_have_jobs() {
    // As many as its own, and what waited there already or began before its reservation was told. By schedulers, it would be three
    // times as many.
    a_namespace_gets_its_part(100, 60 + 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_three_times_the_weight_gets_three_times_as_much() {
    a_namespace_gets_its_part(300, 20 + 40).await;
}
