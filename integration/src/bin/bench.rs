//! `make bench`: Muster beside the limits of the machine it runs on. Rounds are interleaved, and every figure is shown as
//! a ratio to a limit measured in the same round, since machines drift. The medians of the rounds are printed as a table
//! and, with `BENCH_JSON=path`, written as JSON. `BENCH_ROUNDS` (default 3) and `BENCH_TASKS` (default 2000) bound it.

#![allow(clippy::print_stdout, reason = "the table is the program's answer")]

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use muster_integration::jobs::{client, finished, job, submit};
use muster_integration::simulated::{Simulated, succeed};
use muster_scheduler::{Options, Scheduler};
use muster_state::testing::Etcd;
use muster_state::{Guard, Key, Keyspace, Memory, Op, StateBackend, Txn};

/// Tasks of the no-op rows.
const NO_OPS: u32 = 100_000;
/// Jobs of the latency row.
const SINGLE_JOBS: usize = 50;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let number = |name: &str, default: u32| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (rounds, tasks) = (number("BENCH_ROUNDS", 3), number("BENCH_TASKS", 2000));
    let mut rows: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let mut note = |name: &'static str, value: f64| rows.entry(name).or_default().push(value);
        let spawns = tokio::task::spawn_blocking(move || spawn_rate(tasks)).await??;
        note("limit: /bin/true by posix_spawn, 2 at once [/s]", spawns);
        note("peer: xargs -P2 -n1 /bin/true [of posix_spawn]", xargs_rate(tasks)? / spawns);

        let etcd = Etcd::start().await?;
        for (store, name_rate, name_wait) in [
            (
                Store::Memory,
                "process tasks, one job, 2 slots, memory [of posix_spawn]",
                "one job of one task, memory: p50 [ms]",
            ),
            (
                Store::Embedded,
                "process tasks, one job, 2 slots, redb [of posix_spawn]",
                "one job of one task, redb: p50 [ms]",
            ),
            (
                Store::Etcd,
                "process tasks, one job, 2 slots, etcd [of posix_spawn]",
                "one job of one task, etcd: p50 [ms]",
            ),
        ] {
            let folder = tempfile::tempdir()?;
            let state = store.open(&folder, &etcd, round).await?;
            let (rate, wait) = process_tasks(state, folder.path().join("executor"), tasks).await?;
            note(name_rate, rate / spawns);
            note(name_wait, wait.as_secs_f64() * 1e3);
        }
        note("limit: guarded transaction, one client, etcd: p50 [ms]", commit_time(&etcd, round).await?);
        let folder = tempfile::tempdir()?;
        let memory = no_op_rate(Store::Memory.open(&folder, &etcd, round).await?).await?;
        note("no-op tasks, 100,000 in one job, memory [/s]", memory);
        let state = Arc::new(etcd.store(&format!("noop{round}"))) as Arc<dyn StateBackend>;
        note("no-op tasks, 100,000 in one job, etcd [of memory]", no_op_rate(state).await? / memory);
    }
    let medians: BTreeMap<&str, f64> = rows
        .into_iter()
        .map(|(name, mut values)| {
            values.sort_by(f64::total_cmp);
            (name, values[values.len() / 2])
        })
        .collect();
    println!("| what (median of {rounds} rounds) | figure |\n|---|---|");
    for (name, value) in &medians {
        println!("| {name} | {value:.2} |");
    }
    if let Some(path) = std::env::var_os("BENCH_JSON") {
        std::fs::write(&path, serde_json::to_vec_pretty(&medians)?).context("BENCH_JSON")?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Store {
    Memory,
    Embedded,
    Etcd,
}

impl Store {
    async fn open(self, folder: &tempfile::TempDir, etcd: &Etcd, round: u32) -> anyhow::Result<Arc<dyn StateBackend>> {
        Ok(match self {
            Self::Memory => Arc::new(Memory::new()),
            Self::Embedded => {
                muster_state::open(&format!("redb://{}", folder.path().join("store").display()), "b").await?
            }
            Self::Etcd => Arc::new(etcd.store(&format!("bench{round}"))),
        })
    }
}

fn spawn_rate(tasks: u32) -> anyhow::Result<f64> {
    let started = Instant::now();
    std::thread::scope(|scope| {
        let worker = || -> std::io::Result<()> {
            for _ in 0..tasks / 2 {
                Command::new("/bin/true").process_group(0).stdin(Stdio::null()).status()?;
            }
            Ok(())
        };
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })?;
    Ok(f64::from(tasks) / started.elapsed().as_secs_f64())
}

fn xargs_rate(tasks: u32) -> anyhow::Result<f64> {
    let started = Instant::now();
    let status = Command::new("sh").arg("-c").arg(format!("seq {tasks} | xargs -P2 -n1 /bin/true")).status()?;
    anyhow::ensure!(status.success(), "xargs: {status}");
    Ok(f64::from(tasks) / started.elapsed().as_secs_f64())
}

fn supervisor() -> anyhow::Result<Vec<std::ffi::OsString>> {
    let beside: PathBuf = std::env::current_exe()?.with_file_name("muster");
    anyhow::ensure!(beside.exists(), "{} is not built: run it through make bench", beside.display());
    Ok(vec![beside.into(), "supervise".into()])
}

async fn process_tasks(state: Arc<dyn StateBackend>, folder: PathBuf, tasks: u32) -> anyhow::Result<(f64, Duration)> {
    let scheduler = Scheduler::start(Options::new(state)).await?;
    let mut options = muster_executor::Options::new(&folder, vec![scheduler.address().to_string()]);
    options.supervisor = supervisor()?;
    options.resources.cpu_milli = 2000;
    let executor = muster_executor::Executor::start(options).await?;
    let mut client = client(scheduler.address()).await?;
    let started = Instant::now();
    let id = submit(&mut client, job("bench", &[("true", tasks, &[])]), "").await?;
    let view = finished(&mut client, &id, 600).await?;
    let took = Duration::from_millis(view.finished_at_ms - view.submitted_at_ms).min(started.elapsed());
    anyhow::ensure!(view.tasks.is_some_and(|counts| counts.successful == tasks), "not all were successful: {view:?}");
    let mut waits = Vec::new();
    for _ in 0..SINGLE_JOBS {
        let started = Instant::now();
        let id = submit(&mut client, job("single", &[("true", 1, &[])]), "").await?;
        finished(&mut client, &id, 60).await?;
        waits.push(started.elapsed());
    }
    waits.sort();
    executor.stop().await;
    scheduler.stop().await;
    Ok((f64::from(tasks) / took.as_secs_f64(), waits[waits.len() / 2]))
}

async fn no_op_rate(state: Arc<dyn StateBackend>) -> anyhow::Result<f64> {
    let scheduler = Scheduler::start(Options::new(state)).await?;
    let _executor = Simulated::start("noop", scheduler.address(), 1000, succeed()).await?;
    let mut client = client(scheduler.address()).await?;
    let id = submit(&mut client, job("noop", &[("only", NO_OPS, &[])]), "").await?;
    let view = finished(&mut client, &id, 600).await?;
    scheduler.stop().await;
    Ok(f64::from(NO_OPS) / Duration::from_millis(view.finished_at_ms - view.submitted_at_ms).as_secs_f64())
}

async fn commit_time(etcd: &Etcd, round: u32) -> anyhow::Result<f64> {
    let store = etcd.store(&format!("commit{round}"));
    let key = Key::new(Keyspace::Meta, "bench");
    let mut revision = store.put(key.clone(), bytes::Bytes::from(vec![0; 256])).await?;
    let mut times = Vec::new();
    for _ in 0..500 {
        let txn = Txn {
            guards: vec![Guard::AtRevision(key.clone(), revision)],
            ops: vec![Op::Put { key: key.clone(), value: vec![0; 256].into(), session: None }],
            read_on_failure: Vec::new(),
        };
        let started = Instant::now();
        match store.put_txn(txn).await? {
            muster_state::TxnOutcome::Committed(at) => revision = at,
            refused @ muster_state::TxnOutcome::Refused { .. } => anyhow::bail!("refused: {refused:?}"),
        }
        times.push(started.elapsed());
    }
    times.sort();
    Ok(times[times.len() / 2].as_secs_f64() * 1e3)
}
