//! `muster bench executors`' executors: they do for schedulers what real ones do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_executor::simulated::{Options, Simulated};
use muster_integration::jobs::{client, finished, job, submit};
use muster_integration::{cluster, eventually};
use muster_proto::v1;
use muster_state::{Memory, StateBackend};

const TASKS: u32 = 500;

/// Waits until all of them have a session, and it is not one that is about to end.
async fn at_home(simulated: &Simulated, scheduler: &str, address: SocketAddr, count: usize) {
    eventually("all executors are at one scheduler", 30, || async {
        let mut cluster = v1::cluster_client::ClusterClient::connect(format!("http://{address}")).await.ok()?;
        let views = cluster.list_executors(v1::ListExecutorsRequest {}).await.ok()?.into_inner().executors;
        let here = views.iter().filter(|view| view.state == "ready" && view.home == scheduler).count();
        (here == count && simulated.counts().registered.load(Ordering::Relaxed) == count as u64).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_executors_run_jobs_and_go_on_at_another_scheduler() -> anyhow::Result<()> {
    cluster::logs();
    let memory: Arc<dyn StateBackend> = Arc::new(Memory::new());
    let first = cluster::scheduler("one", Arc::clone(&memory)).await?;
    let options = Options {
        schedulers: vec![first.address().to_string()],
        count: 4,
        slots: 8,
        task: Duration::from_millis(2),
        prefix: "simulated".to_owned(),
    };
    let simulated = Simulated::start(&options).await?;
    at_home(&simulated, "one", first.address(), 4).await;
    let mut jobs = client(first.address()).await?;
    let id = submit(&mut jobs, job("many", &[("true", TASKS, &[])]), "").await?;
    let view = finished(&mut jobs, &id, 60).await?;
    assert_eq!(view.tasks.map(|counts| counts.successful), Some(TASKS));

    // They were never told of the second one but by the first.
    let second = cluster::scheduler("two", memory).await?;
    eventually("the first one knows the second", 30, || async {
        let mut peers = v1::cluster_client::ClusterClient::connect(format!("http://{}", first.address())).await.ok()?;
        let known = peers.list_schedulers(v1::ListSchedulersRequest {}).await.ok()?.into_inner().schedulers.len();
        (known == 2).then_some(())
    })
    .await;
    first.stop().await;
    at_home(&simulated, "two", second.address(), 4).await;
    let mut jobs = client(second.address()).await?;
    let id = submit(&mut jobs, job("again", &[("true", TASKS, &[])]), "").await?;
    let view = finished(&mut jobs, &id, 60).await?;
    assert_eq!(view.tasks.map(|counts| counts.successful), Some(TASKS));

    let counts = simulated.counts();
    assert_eq!(counts.finished.load(Ordering::Relaxed), u64::from(2 * TASKS));
    eventually("all results are settled, and nothing runs", 30, || async {
        let settled = counts.settled.load(Ordering::Relaxed) == u64::from(2 * TASKS);
        (settled && counts.running.load(Ordering::Relaxed) == 0).then_some(())
    })
    .await;
    simulated.stop().await;
    eventually("they have said good-bye", 30, || async {
        let mut cluster =
            v1::cluster_client::ClusterClient::connect(format!("http://{}", second.address())).await.ok()?;
        let views = cluster.list_executors(v1::ListExecutorsRequest {}).await.ok()?.into_inner().executors;
        views.iter().all(|view| view.state == "stopped").then_some(())
    })
    .await;
    second.stop().await;
    Ok(())
}
