//! Groups: what it costs that the jobs of one are counted together, and how fast all of it is cancelled.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_integration::jobs::submit;
use muster_proto::v1;
use muster_proto::v1::groups_client::GroupsClient;
use tonic::transport::Channel;

use crate::cluster::{Cluster, Store};
use crate::measures::{CLIENTS, NO_OP, many};
use crate::rows::Notes;
use crate::scale::Scale;
use crate::simulation::Size;

/// Groups that lie in the one that is cancelled.
const PARTS: u32 = 20;
/// Tasks of each job of it.
const TASKS: u32 = 100;
/// Until all jobs of a group are over.
const WITHIN: Duration = Duration::from_secs(600);

/// Ten thousand jobs of one group end at three schedulers; ten thousand of a hundred tasks are cancelled.
pub(crate) async fn groups(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    conflicts(scale, &logs.join("conflicts"), notes).await?;
    cancel(scale, &logs.join("cancel"), notes).await
}

async fn conflicts(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    let cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    let _simulation = cluster.simulate(NO_OP, "counted").await?;
    let mut groups = client(&cluster).await?;
    create(&mut groups, "all").await?;
    let started = Instant::now();
    fill(&cluster, scale.jobs, |_| v1::JobSpec { group: "all".to_owned(), ..many(1, "") }).await?;
    let view = complete(&mut groups, "all").await?;
    notes.set("groups.rate", f64::from(scale.jobs) / started.elapsed().as_secs_f64());
    let successful = view.jobs.map_or(0, |jobs| jobs.successful);
    anyhow::ensure!(successful == u64::from(scale.jobs), "{successful} of {} jobs are counted", scale.jobs);
    notes.set("groups.conflicts", cluster.counted("muster_writes_fenced_total").await?);
    Ok(())
}

async fn cancel(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    /// Launches that were under way when the cancel was acknowledged have arrived by then.
    const UNDER_WAY: Duration = Duration::from_millis(100);
    let cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    let size = Size { count: 16, slots: 4, task_ms: 1000 };
    let simulation = cluster.simulate(size, "campaign").await?;
    let mut groups = client(&cluster).await?;
    create(&mut groups, "campaign").await?;
    for part in 0..PARTS {
        create(&mut groups, &format!("campaign/{part}")).await?;
    }
    fill(&cluster, scale.jobs, |job| v1::JobSpec { group: format!("campaign/{}", job % PARTS), ..many(TASKS, "") })
        .await?;
    let started = Instant::now();
    let request = v1::CancelGroupRequest { group: "campaign".to_owned(), ..Default::default() };
    groups.cancel_group(request).await?;
    let acknowledged = Instant::now();
    notes.set("group_cancel.ms", (acknowledged - started).as_secs_f64() * 1e3);
    let view = complete(&mut groups, "campaign").await?;
    notes.set("group_cancel.ended_s", acknowledged.elapsed().as_secs_f64());
    let before = simulation.launched_by(acknowledged);
    let cancelled = view.jobs.map_or(0, |jobs| jobs.cancelled);
    anyhow::ensure!(before > 0 && cancelled > 0, "{before} tasks were launched, and {cancelled} jobs cancelled");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let later = simulation.launched_by(Instant::now()) - simulation.launched_by(acknowledged + UNDER_WAY);
    notes.set("group_cancel.launched_after", later as f64);
    Ok(())
}

async fn client(cluster: &Cluster) -> anyhow::Result<GroupsClient<Channel>> {
    let addresses = cluster.addresses();
    let first = addresses.first().context("there are schedulers")?;
    Ok(GroupsClient::connect(format!("http://{first}")).await?)
}

async fn create(groups: &mut GroupsClient<Channel>, path: &str) -> anyhow::Result<()> {
    let request = v1::CreateGroupRequest { path: path.to_owned(), ..Default::default() };
    groups.create_group(request).await?;
    Ok(())
}

/// Submits jobs by many clients at once.
async fn fill(cluster: &Cluster, jobs: u32, spec: fn(u32) -> v1::JobSpec) -> anyhow::Result<()> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = cluster.client(number as usize % cluster.schedulers.len()).await?;
        clients.push(tokio::spawn(async move {
            let mut job = number;
            while job < jobs {
                submit(&mut client, spec(job), "").await?;
                job += CLIENTS;
            }
            Ok::<(), anyhow::Error>(())
        }));
    }
    for client in clients {
        client.await??;
    }
    Ok(())
}

async fn complete(groups: &mut GroupsClient<Channel>, path: &str) -> anyhow::Result<v1::GroupView> {
    let request = v1::GetGroupRequest { group: path.to_owned(), ..Default::default() };
    let given_up_at = Instant::now() + WITHIN;
    loop {
        let view = groups.get_group(request.clone()).await?.into_inner();
        if view.jobs.is_some_and(|jobs| jobs.live == 0) {
            return Ok(view);
        }
        anyhow::ensure!(Instant::now() < given_up_at, "group {path} is not complete: {:?}", view.jobs);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
