//! `make bench`: Muster beside the limits of the machine it runs on, and beside its peers. Rounds are interleaved, and what
//! is compared was measured in the same round, since machines drift; the figures are medians over the rounds.
//!
//! `ONLY=name,…` measures some rows alone, `ROUNDS` says how often (5), `QUICK=1` measures less of everything. Logs and
//! `results.json` go to `target/bench`; `PUBLISH=1` also writes docs/benchmarks.json and docs/benchmarks.md.

#![allow(clippy::print_stdout, reason = "the table is the program's answer")]

mod cluster;
mod delay;
mod groups;
mod limits;
mod machine;
mod measures;
mod peers;
mod quantiles;
mod report;
mod rows;
mod scale;
mod scrape;
mod simulation;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;

use cluster::Store;
use report::Results;
use rows::{Measure, Notes, ROWS, Row};
use scale::Scale;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let (scale, rows) = (Scale::from_environment()?, wanted()?);
    let measures: BTreeSet<Measure> = rows.iter().flat_map(|row| row.needs.iter().copied()).collect();
    let folder = folder()?;
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let machine = machine::Machine::look(&folder)?;
    let (mut rounds, mut failures) = (Vec::new(), BTreeMap::new());
    for round in 1..=scale.rounds {
        let mut notes = Notes::default();
        for &measure in &measures {
            let started = Instant::now();
            let logs = folder.join(format!("round{round}")).join(format!("{measure:?}").to_lowercase());
            let done = Box::pin(take(measure, &scale, &logs, &mut notes)).await;
            let seconds = started.elapsed().as_secs_f64();
            eprintln!("round {round} of {}: {measure:?}: {seconds:.1} s", scale.rounds);
            // The other rows are worth having without it; the table says which are missing, and the exit code too.
            if let Err(why) = done {
                eprintln!("  failed: {why:#}");
                failures.insert(format!("{measure:?} in round {round}"), format!("{why:#}"));
            }
        }
        rounds.push(notes);
        // After each round, so that what was measured is kept whatever happens in the next one.
        let results = Results::of(&machine, &scale, &rows, &rounds, &failures);
        std::fs::write(folder.join("results.json"), serde_json::to_vec_pretty(&results)?)?;
    }
    let results = Results::of(&machine, &scale, &rows, &rounds, &failures);
    print!("{}", results.table());
    if std::env::var("PUBLISH").is_ok_and(|publish| publish == "1") {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        std::fs::write(docs.join("benchmarks.json"), format!("{}\n", serde_json::to_string_pretty(&results)?))?;
        std::fs::write(docs.join("benchmarks.md"), results.page())?;
    }
    anyhow::ensure!(failures.is_empty(), "not everything could be measured: {failures:#?}");
    Ok(())
}

fn wanted() -> anyhow::Result<Vec<&'static Row>> {
    let only = std::env::var("ONLY").unwrap_or_default();
    let names: Vec<&str> = only.split(',').filter(|name| !name.is_empty()).collect();
    if let Some(unknown) = names.iter().find(|name| !ROWS.iter().any(|row| row.name == **name)) {
        let all: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        anyhow::bail!("there is no row '{unknown}'; there are: {}", all.join(" "));
    }
    Ok(ROWS.iter().filter(|row| names.is_empty() || names.contains(&row.name)).collect())
}

/// `bench` in the target folder, of which this program lies in a profile's folder.
fn folder() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).context("it lies in a folder of the target folder")?;
    Ok(target.join("bench"))
}

async fn take(measure: Measure, scale: &Scale, logs: &Path, notes: &mut Notes) -> anyhow::Result<()> {
    match measure {
        Measure::Spawn => tokio::task::block_in_place(|| limits::spawn(scale, notes)),
        Measure::Xargs => tokio::task::block_in_place(|| limits::xargs(scale, notes)),
        Measure::Commit => limits::commit(notes).await,
        Measure::Ping => limits::ping(notes).await,
        Measure::HyperQueue => tokio::task::block_in_place(|| peers::run("hyperqueue", scale, logs, notes)),
        Measure::Dask => tokio::task::block_in_place(|| peers::run("dask", scale, logs, notes)),
        Measure::Process => measures::processes("process", Store::Etcd, scale, logs, notes).await,
        Measure::ProcessMemory => measures::processes("process_memory", Store::Memory, scale, logs, notes).await,
        Measure::ProcessFar => measures::processes_far(scale, logs, notes).await,
        Measure::NoOp => measures::no_ops("noop", Store::Etcd, scale, logs, notes).await,
        Measure::NoOpMemory => measures::no_ops("noop_memory", Store::Memory, scale, logs, notes).await,
        Measure::Single => measures::single(scale, logs, notes).await,
        Measure::SmallJobs => measures::small_jobs(scale, logs, notes).await,
        Measure::OneAndThree => measures::one_and_three(scale, logs, notes).await,
        Measure::Fleet => measures::fleet(scale, logs, notes).await,
        Measure::Beside => measures::beside(scale, logs, notes).await,
        Measure::Million => measures::million(scale, logs, notes).await,
        Measure::Trouble => measures::million_in_trouble(scale, logs, notes).await,
        Measure::Groups => groups::groups(scale, logs, notes).await,
    }
}
