//! Namespaces in a real cluster: limits and quotas, set by an operator through one scheduler, kept by another one.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::SocketAddr;
use std::process::Command;

use muster_integration::eventually;
use muster_integration::processes::muster;
use muster_integration::world::{World, client, ready, succeeded};
use muster_state::testing::Etcd;

fn say(scheduler: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new(muster());
    command.env_clear().env("MUSTER_SCHEDULERS", scheduler.to_string());
    let said = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    assert!(said.status.success(), "{}", text(said.stderr));
    text(said.stdout)
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_in_the_whole_cluster_until_they_are_lifted() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let one = world.scheduler("one", &etcd.url(), &[]).await;
    let two = world.scheduler("two", &etcd.url(), &[]).await;
    let _executor = world.executor("node-1", "push", &[one.address(), two.address()], &["--cpus", "8"]).await;
    let clients = [client(&[one.address()]).await, client(&[two.address()]).await];
    ready(&clients[0], 1).await;
    ready(&clients[1], 1).await;

    let set = say(one.address(), &["namespaces", "set", "etl", "--max-running", "3", "--max-jobs", "2"]);
    assert!(set.contains("jobs=2 tasks=3"), "{set}");
    // The other scheduler has heard of it when it refuses what is one too many.
    let job = |stage: &str| {
        format!(
            "{{name: j, namespace: etl, stages: {{{stage}: {{tasks: 4, run: 'eval \"$NOTE\"; gate=go; eval \"$WAIT\"'}}}}}}"
        )
    };
    let first = clients[0].submit(world.job(&job("first")), None).await.unwrap().job;
    let second = clients[1].submit(world.job(&job("second")), None).await.unwrap().job;
    let refused = eventually("a third job is refused", 60, async || {
        let third = clients[1].submit(world.job(&job("third")), None).await;
        match third {
            Ok(submitted) => {
                clients[1].cancel_job(submitted.job, "too many").await.unwrap();
                None
            }
            Err(refused) => Some(refused.to_string()),
        }
    })
    .await;
    assert!(refused.contains("may have 2 (`max_jobs`)"), "{refused}");
    let said = eventually("it says that the limit is reached", 60, async || {
        let said = say(two.address(), &["explain", &first.to_string()]);
        said.contains("is at its limit").then_some(said)
    })
    .await;
    assert!(said.contains("namespace etl is at its limit: "), "{said}");
    let listed = say(two.address(), &["namespaces"]);
    assert!(listed.contains("etl"), "{listed}");

    say(two.address(), &["namespaces", "set", "etl", "--reset"]);
    eventually("all eight run", 60, async || {
        let listed = say(one.address(), &["namespaces", "-o", "json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        (listed[0]["running"] == 8).then_some(())
    })
    .await;
    world.open("go");
    succeeded(&clients[0], first).await;
    succeeded(&clients[1], second).await;
}
