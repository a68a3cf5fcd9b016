//! Whole clusters in one process each, with a seed each; see `src/bin/simulation` and docs/simulation.md.
//!
//! `SIM_SEED=7` runs one seed and shows all that happens in it. `SIM_SEEDS` and `SIM_FIRST_SEED` choose a range,
//! `SIM_BREAK` names a failpoint that leaves a guard out. `make sim` sets them.

#![cfg(debug_assertions)] // In a release build there are no failpoints, so threads cannot be kept out.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// Seeds of an ordinary run.
const SEEDS: u64 = 300;
/// A seed takes less than a second of a core; one that takes so long, on a machine however busy, hangs.
const SEED_WITHIN: Duration = Duration::from_secs(240);
/// From so many seeds on, a range must have enough of every fault.
const ENOUGH_SEEDS: u64 = 100;

/// Each kind of fault, jobs that wait for jobs or are jobs in jobs, and tasks that read what others left, with how many of it a thousand seeds have at least.
const FAULTS: [(&str, u64); 31] = [
    ("after-jobs", 300),
    ("cancelled", 200),
    ("client-crashed", 500),
    ("executor-crashed", 1000),
    ("executor-isolated", 500),
    ("executor-stopped", 200),
    ("group-cancelled", 100),
    ("held", 2000),
    ("in-cancelled-group", 20),
    ("input-read", 2000),
    ("job-in-job", 500),
    ("launches-overtaken", 500),
    ("output-handed-over", 100),
    ("partition", 2000),
    ("partition-from", 300),
    ("partition-to", 300),
    ("scheduler-crashed", 1000),
    ("scheduler-isolated", 500),
    ("scheduler-stalled", 300),
    ("scheduler-stopped", 300),
    ("session-revoked", 500),
    ("session-revoked-before-commit", 50),
    ("store-cut-off", 300),
    ("store-slow", 2000),
    ("store-unavailable", 1000),
    ("submitted-twice", 500),
    ("unknown-done", 300),
    ("unknown-done-later", 300),
    ("unknown-not-done", 200),
    ("watch-broken", 500),
    ("watch-late", 2000),
];

/// What one seed says of itself.
#[derive(Debug, Clone, Deserialize)]
struct Report {
    trace: String,
    events: u64,
    faults: BTreeMap<String, u64>,
    jobs: u64,
    revisions: u64,
    starts: u64,
    run_more_than_once: u64,
    takeovers: u64,
    /// From the last fault to the end of the last job.
    calm_at_ms: u64,
    simulated_ms: u64,
    wrong: Vec<String>,
}

/// A seed that did not go well: why, and what it said.
#[derive(Debug)]
struct Failure {
    seed: u64,
    why: String,
    said: String,
}

fn command(seed: u64, broken: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulation"));
    command.arg(seed.to_string());
    command.env("FAILPOINTS", if broken.is_empty() { String::new() } else { format!("{broken}=return") });
    command
}

/// Runs a seed to its end.
fn run(seed: u64, broken: &str) -> Result<Report, Failure> {
    let mut child = command(seed, broken)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("the simulation cannot be started: {error}"));
    let mut errors = child.stderr.take().expect("it is piped");
    let said = std::thread::spawn(move || {
        let mut text = String::new();
        // What can be read of it.
        let _ = errors.read_to_string(&mut text);
        text
    });
    let mut out = child.stdout.take().expect("it is piped");
    let child = Arc::new(Mutex::new(child));
    let over = Arc::new(AtomicBool::new(false));
    let guard = std::thread::spawn({
        let (child, over) = (Arc::clone(&child), Arc::clone(&over));
        move || {
            let until = Instant::now() + SEED_WITHIN;
            while Instant::now() < until && !over.load(Ordering::Relaxed) {
                std::thread::park_timeout(SEED_WITHIN);
            }
            if !over.load(Ordering::Relaxed) {
                let _ = child.lock().expect("nobody panics while holding it").kill();
            }
        }
    });
    let mut text = String::new();
    let read = out.read_to_string(&mut text);
    let ended = child.lock().expect("nobody panics while holding it").wait();
    over.store(true, Ordering::Relaxed);
    guard.thread().unpark();
    guard.join().expect("the guard does not panic");
    let said = said.join().expect("the reader does not panic");
    let failed = |why: String| Failure { seed, why, said: said.clone() };
    read.map_err(|error| failed(format!("its output cannot be read: {error}")))?;
    let report: Report = serde_json::from_str(text.trim())
        .map_err(|error| failed(format!("it ended without a report ({ended:?}): {error}")))?;
    if report.wrong.is_empty() { Ok(report) } else { Err(failed(report.wrong.join("\n"))) }
}

/// Runs seeds on all cores, until `stop` says so; answers in the order of seeds.
fn run_range(
    first: u64,
    count: u64,
    broken: &str,
    stop: impl Fn(&Result<Report, Failure>) -> bool + Sync,
) -> Vec<Result<Report, Failure>> {
    let (next, stopped) = (AtomicU64::new(first), AtomicBool::new(false));
    let results = Mutex::new(BTreeMap::new());
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    let result = run(seed, broken);
                    if stop(&result) {
                        stopped.store(true, Ordering::Relaxed);
                    }
                    results.lock().expect("nobody panics while holding it").insert(seed, result);
                }
            });
        }
    });
    results.into_inner().expect("nobody panics while holding it").into_values().collect()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[test]
fn random_clusters_keep_every_promise() {
    let broken = std::env::var("SIM_BREAK").unwrap_or_default();
    if let Some(seed) = number("SIM_SEED") {
        let ended = command(seed, &broken).arg("told").status().expect("the simulation can be started");
        assert!(ended.success(), "seed {seed} failed; its last lines say how");
        return;
    }
    let (first, count) = (number("SIM_FIRST_SEED").unwrap_or(1), number("SIM_SEEDS").unwrap_or(SEEDS));
    let began = Instant::now();
    // The first few failures are enough to read.
    let results = run_range(first, count, &broken, |_| false);
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    let (mut failures, mut reports) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(report) => {
                for (kind, times) in &report.faults {
                    *faults.entry(kind.clone()).or_default() += times;
                }
                reports.push(report);
            }
            Err(failure) => failures.push(failure),
        }
    }
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    let mut after_faults: Vec<u64> =
        reports.iter().map(|report| report.simulated_ms.saturating_sub(report.calm_at_ms)).collect();
    after_faults.sort_unstable();
    println!(
        "{} seeds from {first} in {:.0} s, {} failed: {} jobs, {} starts, {} tasks run more than once, {} takeovers, {} \
         revisions, {} events; after the last fault the work took {} ms (median), {} ms (longest)",
        reports.len() + failures.len(),
        began.elapsed().as_secs_f64(),
        failures.len(),
        sum(|report| report.jobs),
        sum(|report| report.starts),
        sum(|report| report.run_more_than_once),
        sum(|report| report.takeovers),
        sum(|report| report.revisions),
        sum(|report| report.events),
        after_faults.get(after_faults.len() / 2).unwrap_or(&0),
        after_faults.last().unwrap_or(&0),
    );
    for (kind, times) in &faults {
        println!("  {kind:32} {times}");
    }
    if !failures.is_empty() {
        for failure in failures.iter().take(3) {
            let last: Vec<&str> = failure.said.lines().rev().take(80).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            println!("--- seed {}\n{}\n{}", failure.seed, last.join("\n"), failure.why);
        }
        let option = if broken.is_empty() { String::new() } else { format!(" BREAK={broken}") };
        let commands: Vec<String> = failures
            .iter()
            .map(|f| format!("make sim SEED={}{option}   # {}", f.seed, f.why.lines().next().unwrap_or_default()))
            .collect();
        panic!("{} of {count} seeds failed:\n{}", failures.len(), commands.join("\n"));
    }
    if count >= ENOUGH_SEEDS {
        for (kind, per_thousand) in FAULTS {
            let times = faults.get(kind).copied().unwrap_or(0);
            assert!(times * 1000 >= per_thousand * count, "{kind} happened only {times} times in {count} seeds");
        }
        for kind in faults.keys() {
            assert!(FAULTS.iter().any(|(known, _)| known == kind), "{kind} is not in the list of faults");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3, 79, 497, 1000] {
        let [first, second] = [run(seed, ""), run(seed, "")].map(|result| {
            result.map(|report| (report.trace, report.events)).unwrap_or_else(|failure| panic!("{failure:?}"))
        });
        assert_eq!(first, second, "seed {seed} is not the same twice");
    }
}

/// Seeds among which a cluster with a broken guard must be caught; some ten times what each needs (docs/simulation.md).
fn check_caught(guard: &str, within: u64) {
    let results = run_range(1, within, guard, Result::is_err);
    let ran = results.len();
    let caught = results.into_iter().find_map(Result::err);
    let caught = caught.unwrap_or_else(|| panic!("{ran} seeds found nothing wrong with {guard}"));
    // That the simulation itself broke down is not what was to be shown.
    assert!(!caught.why.contains("without a report") && !caught.why.contains("a panic"), "{caught:?}");
    if let Err(whole) = run(caught.seed, "") {
        panic!("seed {} fails with all guards in place: {}", whole.seed, whole.why);
    }
    println!("{guard}: caught by seed {}: {}", caught.seed, caught.why.lines().next().unwrap_or_default());
}

#[test]
fn writes_without_the_owners_token_are_caught() {
    check_caught("break-token-compare", 100);
}

#[test]
fn writes_without_their_predecessor_are_caught() {
    check_caught("break-predecessor-compare", 60);
}

#[test]
fn launches_before_their_commit_are_caught() {
    check_caught("break-launch-after-commit", 60);
}

#[test]
fn executors_that_take_launches_of_former_owners_are_caught() {
    check_caught("break-executor-refusal", 300);
}

#[test]
fn acknowledgements_before_their_commit_are_caught() {
    check_caught("break-acknowledge-after-commit", 100);
}

#[test]
fn commits_that_know_of_no_groups_cancel_are_caught() {
    check_caught("break-group-cancel-compare", 1000);
}

#[test]
fn taking_silence_for_evidence_is_caught() {
    check_caught("break-silence", 60);
}
