//! Metrics of real processes, through the events that they are there for.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::{Ipv4Addr, SocketAddr};

use muster_integration::eventually;
use muster_integration::metrics::{metrics, value};
use muster_integration::world::{World, client, ready, succeeded};
use muster_state::testing::Etcd;

/// A port of this process's own, on a loopback address that nobody else uses: 127.64.0.0/10.
fn own_port(number: u8) -> SocketAddr {
    let host = (std::process::id() << 2 | u32::from(number)) & 0x003f_ffff;
    (Ipv4Addr::from_bits(0x7f40_0000 | host), 9464).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_takeover_shows_in_the_metrics_of_whoever_took_over() {
    let world = World::new();
    let etcd = Etcd::start().await.unwrap();
    let ports = [own_port(0), own_port(1), own_port(2)];
    let at = ports.map(|port| port.to_string());
    let mut first = world.scheduler("first", &etcd.url(), &["--metrics", &at[0]]).await;
    let second = world.scheduler("second", &etcd.url(), &["--metrics", &at[1]]).await;
    let schedulers = [first.address(), second.address()];
    let _executor = world.executor("e", "push", &schedulers, &["--metrics", &at[2]]).await;
    let at_first = client(&[first.address()]).await;
    ready(&at_first, 1).await;
    let spec = "name: two\nstages: {wait: {tasks: 2, run: 'eval \"$NOTE\"; gate=go; eval \"$WAIT\"'}}\n";
    let job = at_first.submit(world.job(spec), None).await.unwrap().job;
    world.started("wait", 2).await;
    eventually("the executor shows both", 10, || async {
        let text = metrics(ports[2]).await;
        (value(&text, "muster_executor_attempts{state=\"running\"}") == 2.0).then_some(())
    })
    .await;
    eventually("the first scheduler owns the job", 10, || async {
        (value(&metrics(ports[0]).await, "muster_jobs_owned") == 1.0).then_some(())
    })
    .await;
    let owner = metrics(ports[0]).await;
    assert!(value(&owner, "muster_commits_total{outcome=\"committed\"}") >= 1.0, "{owner}");
    assert!(value(&owner, "muster_commit_seconds_count") >= 1.0, "{owner}");
    let slack = value(&owner, "muster_session_slack_seconds");
    assert!(slack > 0.0 && slack <= 2.0, "its sessions live for 2 s: {slack}");
    let heir = metrics(ports[1]).await;
    assert_eq!((value(&heir, "muster_takeovers_total"), value(&heir, "muster_jobs_owned")), (0.0, 0.0), "{heir}");

    first.kill();
    eventually("the second scheduler has taken over", 30, || async {
        let text = metrics(ports[1]).await;
        (value(&text, "muster_takeover_seconds_count") == 1.0 && value(&text, "muster_jobs_owned") == 1.0).then_some(())
    })
    .await;
    assert_eq!(value(&metrics(ports[1]).await, "muster_takeovers_total"), 1.0);
    world.open("go");
    succeeded(&client(&[second.address()]).await, job).await;
    eventually("nothing is owned, and both results are settled", 10, || async {
        let text = metrics(ports[1]).await;
        let settled = value(&text, "muster_statuses_settled_total");
        (value(&text, "muster_jobs_owned") == 0.0 && settled >= 2.0).then_some(())
    })
    .await;
    eventually("the executor's outbox is empty", 10, || async {
        (value(&metrics(ports[2]).await, "muster_executor_outbox_results") == 0.0).then_some(())
    })
    .await;
    assert!(value(&metrics(ports[2]).await, "muster_executor_scheduler_silence_seconds") < 10.0);
}
