//! What is measured in each round, and how. Each measurement has a cluster of its own and notes figures by names that
//! begin with its own.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_integration::jobs::{finished, job, submit};
use muster_proto::v1;

use crate::cluster::{Cluster, Cost, Store};
use crate::quantiles::Times;
use crate::rows::Notes;
use crate::scale::Scale;
use crate::simulation::Size;
use crate::written::Written;

/// Executors of the no-op rows: 1024 slots in all.
pub(crate) const NO_OP: Size = Size { count: 16, slots: 64, task_ms: 0 };
/// What the far etcd is away.
const FAR: Duration = Duration::from_millis(3);
/// Clients of the row of small jobs.
pub(crate) const CLIENTS: u32 = 64;
/// Jobs that share the load of the row that compares one scheduler with three.
const SHARED_JOBS: u32 = 6;
/// Longer than any of these jobs should take.
const JOB_WITHIN_SECONDS: u64 = 60;

/// A job of `/bin/true` in a namespace.
pub(crate) fn many(tasks: u32, namespace: &str) -> v1::JobSpec {
    v1::JobSpec { namespace: namespace.to_owned(), ..job("bench", &[("true", tasks, &[])]) }
}

fn note(notes: &mut Notes, name: &str, tasks: u32, cost: Cost) {
    let tasks = f64::from(tasks);
    notes.set(&format!("{name}.rate"), tasks / cost.seconds);
    notes.set(&format!("{name}.cpu_us"), cost.cpu_seconds / tasks * 1e6);
    notes.set(&format!("{name}.commits"), cost.commits / tasks);
    notes.set(&format!("{name}.bytes"), cost.bytes / tasks);
}

/// What a job left in etcd, by kind, where etcd still has it.
async fn note_written(notes: &mut Notes, name: &str, tasks: u32, cluster: &Cluster, before: crate::cluster::Spent) {
    let (Some(etcd), Some(counters)) = (&cluster.etcd, before.counters()) else { return };
    match Written::since(etcd, counters).await {
        Ok(written) => {
            let (mutable, any) = written.largest();
            notes.set(&format!("{name}.largest_mutable"), mutable as f64);
            notes.set(&format!("{name}.largest"), any as f64);
            let rare = written.puts(&["locks", "slots"]) as f64;
            notes.set(&format!("{name}.locks_and_ledger"), rare / f64::from(tasks));
            notes.written(name, tasks, written);
        }
        // Its figures are missing then, and shown as missing.
        Err(why) => tracing::warn!(%why, name, "what was written cannot be read again"),
    }
}

/// Tasks that are processes.
pub(crate) async fn processes(
    name: &str,
    store: Store,
    scale: &Scale,
    logs: &Path,
    notes: &mut Notes,
) -> anyhow::Result<()> {
    let schedulers = if matches!(store, Store::Memory) { 1 } else { 3 };
    let mut cluster = Cluster::start(store, schedulers, logs).await?;
    cluster.executor().await?;
    let (cost, before) = cluster.costs(vec![many(scale.processes, "")]).await?;
    note(notes, name, scale.processes, cost);
    note_written(notes, name, scale.processes, &cluster, before).await;
    Ok(())
}

/// The same with etcd three milliseconds away.
pub(crate) async fn processes_far(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    processes("process_far", Store::FarEtcd(FAR), scale, logs, notes).await
}

/// Tasks that start nothing.
pub(crate) async fn no_ops(
    name: &str,
    store: Store,
    scale: &Scale,
    logs: &Path,
    notes: &mut Notes,
) -> anyhow::Result<()> {
    let schedulers = if matches!(store, Store::Memory) { 1 } else { 3 };
    let cluster = Cluster::start(store, schedulers, logs).await?;
    let _simulation = cluster.simulate(NO_OP, "noop").await?;
    let (cost, before) = cluster.costs(vec![many(scale.no_ops, "")]).await?;
    note(notes, name, scale.no_ops, cost);
    note_written(notes, name, scale.no_ops, &cluster, before).await;
    Ok(())
}

/// One job of one process at a time, on an idle cluster.
pub(crate) async fn single(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    cluster.executor().await?;
    let mut client = cluster.client(0).await?;
    let mut times = Vec::new();
    for _ in 0..scale.singles {
        let started = Instant::now();
        let id = submit(&mut client, many(1, ""), "").await?;
        finished(&mut client, &id, JOB_WITHIN_SECONDS).await?;
        times.push(started.elapsed());
    }
    let times = Times::of(times);
    notes.set("single.p50_ms", times.quantile_ms(0.5));
    notes.set("single.p99_ms", times.quantile_ms(0.99));
    Ok(())
}

/// Jobs of one no-op task by many clients at once.
pub(crate) async fn small_jobs(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    let cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    let _simulation = cluster.simulate(NO_OP, "small").await?;
    let until = Instant::now() + Duration::from_secs(scale.seconds);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = cluster.client(number as usize % cluster.schedulers.len()).await?;
        clients.push(tokio::spawn(async move {
            let mut done = 0_u32;
            while Instant::now() < until {
                let id = submit(&mut client, many(1, ""), "").await?;
                finished(&mut client, &id, JOB_WITHIN_SECONDS).await?;
                done += 1;
            }
            Ok::<u32, anyhow::Error>(done)
        }));
    }
    let started = Instant::now();
    let mut done = 0;
    for client in clients {
        done += client.await??;
    }
    notes.set("small_jobs.rate", f64::from(done) / started.elapsed().as_secs_f64());
    Ok(())
}

/// The same load on one scheduler and on three.
pub(crate) async fn one_and_three(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    let each = scale.no_ops / SHARED_JOBS;
    for (name, schedulers) in [("one", 1), ("three", 3)] {
        let cluster = Cluster::start(Store::Etcd, schedulers, &logs.join(name)).await?;
        let _simulation = cluster.simulate(NO_OP, "shared").await?;
        let (cost, _) = cluster.costs((0..SHARED_JOBS).map(|_| many(each, "")).collect()).await?;
        note(notes, name, each * SHARED_JOBS, cost);
        let commits = cluster.counted("muster_commits_total").await?;
        let fenced = cluster.counted("muster_writes_fenced_total").await?;
        notes.set(&format!("{name}.conflicts"), fenced / commits.max(1.0));
    }
    Ok(())
}

/// A thousand executors with tasks of a second.
pub(crate) async fn fleet(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    /// Of tasks. The first ones start together and spread out only slowly; the window begins after them.
    const FILLED_AFTER: Duration = Duration::from_secs(4);
    let cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    let size = Size { count: scale.fleet, slots: 16, task_ms: 1000 };
    let started = Instant::now();
    let simulation = cluster.simulate(size, "fleet").await?;
    notes.set("fleet.registered_s", started.elapsed().as_secs_f64());
    let mut client = cluster.client(0).await?;
    let slots = size.count * size.slots;
    // Enough for the window, what comes before it, and some seconds behind it.
    let seconds = scale.seconds + FILLED_AFTER.as_secs() + 4;
    let tasks = slots * u32::try_from(seconds).expect("a measurement takes some seconds");
    submit(&mut client, many(tasks, ""), "").await?;
    let first = simulation.until("tasks run", Duration::from_secs(30), |line| line.running > 0).await?;
    let from = first + FILLED_AFTER;
    tokio::time::sleep_until(from.into()).await;
    let before = cluster.cpu_seconds()?;
    let to = from + Duration::from_secs(scale.seconds);
    tokio::time::sleep_until(to.into()).await;
    notes.set("fleet.cores", (cluster.cpu_seconds()? - before) / (to - from).as_secs_f64());
    notes.set("fleet.busy", simulation.busy(from, to)?);
    Ok(())
}

/// Small jobs, alone and beside another namespace's large one.
pub(crate) async fn beside(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    /// Of a task, of either job.
    const TASK_MS: u32 = 10;
    /// A small job that has not ended by then is one that waits for the large one; then no more are tried.
    const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);
    let cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    let size = Size { count: 8, slots: 8, task_ms: TASK_MS.into() };
    let simulation = cluster.simulate(size, "beside").await?;
    let mut client = cluster.client(0).await?;
    for name in ["idle", "beside"] {
        if name == "beside" {
            submit(&mut client, many(scale.million, "large"), "").await?;
            let running = u64::from(size.count * size.slots) / 2;
            simulation.until("the large job runs", Duration::from_secs(60), |line| line.running >= running).await?;
        }
        let mut times = Vec::new();
        for _ in 0..scale.beside {
            let started = Instant::now();
            let id = submit(&mut client, many(1, "small"), "").await?;
            let done = tokio::time::timeout(GIVEN_UP_AFTER, finished(&mut client, &id, JOB_WITHIN_SECONDS)).await;
            times.push(started.elapsed());
            match done {
                Ok(done) => drop(done?),
                Err(_) => break,
            }
        }
        // Its own task is not a part of the time until it starts.
        let p99 = Times::of(times).quantile_ms(0.99) - f64::from(TASK_MS);
        notes.set(&format!("fair.{name}_p99_ms"), p99);
    }
    notes.set("fair.task_ms", f64::from(TASK_MS));
    Ok(())
}

/// A job of few tasks and one of a million: what each costs for a task, and memory.
pub(crate) async fn million(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    let cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    let _simulation = cluster.simulate(NO_OP, "million").await?;
    let (cost, before) = cluster.costs(vec![many(scale.few, "")]).await?;
    note(notes, "few", scale.few, cost);
    note_written(notes, "few", scale.few, &cluster, before).await;
    let (cost, before) = cluster.costs(vec![many(scale.million, "")]).await?;
    note(notes, "million", scale.million, cost);
    notes.set("million.seconds", cost.seconds);
    notes.set("million.rss_mb", cluster.peak_rss()? / 1e6);
    note_written(notes, "million", scale.million, &cluster, before).await;
    Ok(())
}

/// A job of a million tasks whose owner is killed, and which is cancelled then.
pub(crate) async fn million_in_trouble(scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    /// Longer than a session's time to live and an election.
    const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(120);
    /// Launches that were under way when the cancel was acknowledged have arrived by then.
    const UNDER_WAY: Duration = Duration::from_millis(100);
    let mut cluster = Cluster::start(Store::Etcd, 3, logs).await?;
    let simulation = cluster.simulate(Size { task_ms: 20, ..NO_OP }, "trouble").await?;
    let mut client = cluster.client(0).await?;
    let started = Instant::now();
    let id = submit(&mut client, many(scale.million, ""), "").await?;
    notes.set("million.submit_ms", started.elapsed().as_secs_f64() * 1e3);
    let some = u64::from(scale.million / 50);
    simulation.until("some of it has run", Duration::from_secs(120), |line| line.launched > some).await?;
    notes.set("million.list_first_ms", listed(&mut client, &id, 100).await?);
    notes.set("million.list_page_ms", listed(&mut client, &id, 10_000).await?);

    let owner = client.get_job(v1::GetJobRequest { job_id: id.clone() }).await?.into_inner().owner;
    let position = cluster.addresses().iter().position(|address| *address == owner).context("it has an owner")?;
    let etcd = cluster.etcd.as_ref().context("it was started with one")?;
    cluster.schedulers[position].kill();
    cluster.schedulers.remove(position);
    let store = etcd.store("default");
    let sessions = || async {
        use muster_state::StateBackend as _;
        store.get_from_prefix(muster_state::Keyspace::Schedulers, "").await.map(|page| page.entries.len())
    };
    let given_up_at = Instant::now() + TAKEN_OVER_WITHIN;
    while sessions().await? > cluster.schedulers.len() {
        anyhow::ensure!(Instant::now() < given_up_at, "the session of a killed scheduler has not expired");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let expired = Instant::now();
    let again = simulation.next_launch(expired, TAKEN_OVER_WITHIN).await?;
    notes.set("takeover.seconds", (again - expired).as_secs_f64());

    let mut client = cluster.client(0).await?;
    let started = Instant::now();
    client.cancel_job(v1::CancelJobRequest { job_id: id.clone(), reason: "enough".to_owned() }).await?;
    let acknowledged = Instant::now();
    notes.set("cancel.ms", (acknowledged - started).as_secs_f64() * 1e3);
    finished(&mut client, &id, JOB_WITHIN_SECONDS).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let later = simulation.launched_by(Instant::now()) - simulation.launched_by(acknowledged + UNDER_WAY);
    notes.set("cancel.launched_after", later as f64);
    Ok(())
}

async fn listed(
    client: &mut v1::jobs_client::JobsClient<tonic::transport::Channel>,
    id: &str,
    limit: u32,
) -> anyhow::Result<f64> {
    let started = Instant::now();
    let request = v1::ListTasksRequest { job_id: id.to_owned(), limit, ..v1::ListTasksRequest::default() };
    let tasks = client.list_tasks(request).await?.into_inner().tasks.len();
    anyhow::ensure!(tasks == limit as usize, "{tasks} tasks were listed");
    Ok(started.elapsed().as_secs_f64() * 1e3)
}
