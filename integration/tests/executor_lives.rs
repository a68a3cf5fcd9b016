//! Executors that are heard and cannot be reached, that have forgotten which life they are in, and what of a drain
//! outlives them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;

use muster_client::Client;
use muster_integration::eventually;
use muster_integration::world::{World, client, ready, succeeded, tasks};
use muster_proto::v1;
use muster_state::testing::Etcd;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// One task that waits for the gate `go`.
fn waiting(world: &World) -> v1::JobSpec {
    world.job(r#"{name: waiting, run: 'eval "$NOTE"; gate=go; eval "$WAIT"'}"#)
}

/// A port that nobody listens on just now.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A way to an executor that a test can close, while the executor's own ways out stay open.
struct Way {
    at: SocketAddr,
    to: SocketAddr,
    open: CancellationToken,
}

impl Way {
    /// Closed at first.
    async fn to(to: SocketAddr) -> Self {
        Self { at: free_address().await, to, open: CancellationToken::new() }
    }

    async fn open(&mut self) {
        self.open = CancellationToken::new();
        let (open, to) = (self.open.clone(), self.to);
        let listener = TcpListener::bind(self.at).await.unwrap();
        tokio::spawn(self.open.clone().run_until_cancelled_owned(async move {
            while let Ok((mut from, _)) = listener.accept().await {
                tokio::spawn(open.clone().run_until_cancelled_owned(async move {
                    if let Ok(mut onward) = TcpStream::connect(to).await {
                        // However it ends, both are closed.
                        let _ = tokio::io::copy_bidirectional(&mut from, &mut onward).await;
                    }
                }));
            }
        }));
    }

    fn close(&self) {
        self.open.cancel();
    }
}

/// Waits until an executor is in a state; answers what is said to be wrong with it.
async fn has_state(client: &Client, executor: &str, state: &str) -> String {
    eventually(&format!("{executor} is {state}"), 40, || async {
        let views = client.list_executors().await.ok()?;
        let view = views.into_iter().find(|view| view.executor_id == executor && view.state == state)?;
        Some(view.problem)
    })
    .await
}

async fn says_why(client: &Client, executor: &str, way: &Way) {
    eventually(&format!("it is said why {executor} cannot be used"), 40, || async {
        let views = client.list_executors().await.ok()?;
        let view = views.into_iter().find(|view| view.executor_id == executor)?;
        let said = view.problem.contains(&way.at.to_string()) && view.problem.contains("--advertise");
        said.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_no_scheduler_can_reach_gets_no_work_and_what_it_had_runs_elsewhere() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let one = world.scheduler("one", &etcd.url(), &["--lost-after", "4s"]).await;
    let two = world.scheduler("two", &etcd.url(), &["--lost-after", "4s"]).await;
    let schedulers = [one.address(), two.address()];
    let client = client(&schedulers).await;
    let mut way = Way::to(free_address().await).await;
    let (listen, advertise) = (way.to.to_string(), way.at.to_string());
    let _cut_off =
        world.executor("cut-off", "push", &schedulers, &["--listen", &listen, "--advertise", &advertise]).await;
    // It has never been reached: it is no executor of the cluster's, and its operator is told.
    has_state(&client, "cut-off", "unreachable").await;
    says_why(&client, "cut-off", &way).await;
    let log = std::fs::read_to_string(world.path("logs").join("cut-off.log")).unwrap();
    assert!(log.contains("cannot register") && log.contains("--advertise"), "{log}");
    let job = client.submit(waiting(&world), None).await.unwrap().job;

    way.open().await;
    ready(&client, 1).await;
    world.started("main", 1).await;
    // It goes on sending heartbeats, and registers where and as often as it likes.
    way.close();
    has_state(&client, "cut-off", "lost").await;
    says_why(&client, "cut-off", &way).await;
    let _kept = world.executor("kept", "push", &schedulers, &[]).await;
    world.started("main", 2).await;
    world.open("go");
    succeeded(&client, job).await;
    let task = tasks(&client, job, "main").await.remove(0);
    assert_eq!((task.executor.as_str(), task.attempt), ("kept", 2));

    way.open().await;
    assert_eq!(has_state(&client, "cut-off", "ready").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_lost_its_data_directory_comes_back_as_a_later_life() {
    for mode in ["push", "pull"] {
        let world = World::new();
        // Only evidence brings the task back in time.
        let scheduler = world.scheduler("s", "memory:", &["--lost-after", "1h"]).await;
        let address = [scheduler.address()];
        let listen = free_address().await.to_string();
        let more = ["--listen", listen.as_str()];
        let client = client(&address).await;
        let mut first = world.executor("e", mode, &address, &more).await;
        ready(&client, 1).await;
        let job = client.submit(waiting(&world), None).await.unwrap().job;
        for lives in 1..=3 {
            world.started("main", lives).await;
            first.kill();
            // Its supervisor ends what ran, and then lets go of the directory.
            eventually("the data directory is gone", 30, || async {
                let _ = std::fs::remove_dir_all(world.path("e"));
                (!world.path("e").exists()).then_some(())
            })
            .await;
            first = world.executor("e", mode, &address, &more).await;
        }
        world.started("main", 4).await;
        world.open("go");
        succeeded(&client, job).await;
        let views = client.list_executors().await.unwrap();
        assert_eq!((views.len(), views[0].incarnation, views[0].state.as_str()), (1, 4, "ready"), "{mode}: {views:?}");
        assert_eq!(tasks(&client, job, "main").await[0].attempt, 4, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_executor_of_the_same_name_takes_over_and_the_first_one_says_so() {
    let world = World::new();
    let scheduler = world.scheduler("s", "memory:", &[]).await;
    let address = [scheduler.address()];
    let client = client(&address).await;
    let _first = world.executor("first", "push", &address, &[]).await;
    ready(&client, 1).await;
    let view = client.list_executors().await.unwrap().remove(0);
    assert_eq!((view.executor_id.as_str(), view.incarnation), ("first", 1));
    let second = world.executor("second", "push", &address, &["--id", "first"]).await;
    eventually("the second one is registered", 30, || async {
        let view = client.list_executors().await.ok()?.remove(0);
        (view.incarnation == 2 && view.address == second.address().to_string()).then_some(())
    })
    .await;
    let log = world.path("logs").join("first.log");
    eventually("the first one says so", 30, || async {
        std::fs::read_to_string(&log).unwrap().contains("give each its own id").then_some(())
    })
    .await;
    let views = client.list_executors().await.unwrap();
    assert_eq!((views.len(), views[0].incarnation), (1, 2), "{views:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_was_told_to_drain_does_so_after_a_crash_and_until_that_is_taken_back() {
    let etcd = Etcd::start().await.unwrap();
    for mode in ["push", "pull"] {
        let world = World::new();
        let mut scheduler = world.scheduler(&format!("{mode}-one"), &etcd.url(), &["--cluster", mode]).await;
        let address = [scheduler.address()];
        let client = client(&address).await;
        let mut executor = world.executor("e", mode, &address, &[]).await;
        ready(&client, 1).await;
        let wish = |undo| v1::DrainExecutorRequest { executor_id: "e".to_owned(), undo, ..Default::default() };
        client.drain_executor(wish(false)).await.unwrap();
        has_state(&client, "e", "draining").await;
        executor.kill();
        has_state(&client, "e", "disconnected").await;
        executor = world.executor("e", mode, &address, &[]).await;
        has_state(&client, "e", "draining").await;
        // Nor does another home forget it.
        scheduler.kill();
        let listen = address[0].to_string();
        let _scheduler =
            world.scheduler(&format!("{mode}-two"), &etcd.url(), &["--cluster", mode, "--listen", &listen]).await;
        has_state(&client, "e", "draining").await;
        assert_eq!(client.list_executors().await.unwrap()[0].incarnation, 2);
        let job = client.submit(waiting(&world), None).await.unwrap().job;
        client.drain_executor(wish(true)).await.unwrap();
        has_state(&client, "e", "ready").await;
        world.open("go");
        succeeded(&client, job).await;
        // It holds no longer for the next life either.
        executor.kill();
        executor = world.executor("e", mode, &address, &[]).await;
        eventually("its next life is ready", 30, || async {
            let view = client.list_executors().await.ok()?.remove(0);
            (view.incarnation == 3 && view.state == "ready").then_some(())
        })
        .await;
        executor.assert_alive();
    }
}
