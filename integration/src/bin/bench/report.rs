//! What was measured, as JSON for programs and as a page for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::machine::Machine;
use crate::quantiles::median;
use crate::rows::{Bound, Notes, Row};
use crate::scale::Scale;
use crate::written::{Kind, Written};

/// One line of the table, with its figures.
#[derive(Debug, Serialize)]
struct Line {
    name: &'static str,
    what: &'static str,
    unit: &'static str,
    bound: Bound,
    least: Option<f64>,
    aim: Option<f64>,
    /// One a round, in their order; a round in which it could not be measured has none.
    rounds: Vec<f64>,
    median: Option<f64>,
    /// Null where nothing is asked, or nothing was measured.
    reached: Option<bool>,
}

/// Everything of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    machine: Machine,
    scale: Scale,
    rows: Vec<Line>,
    /// All that was measured, each a median over the rounds.
    measured: BTreeMap<String, f64>,
    /// Records in etcd by kind, of the last round that has them, with the number of tasks.
    written: BTreeMap<String, (u32, Written)>,
    /// What could not be measured, and why.
    failures: BTreeMap<String, String>,
}

impl Results {
    pub(crate) fn of(
        machine: &Machine,
        scale: &Scale,
        rows: &[&'static Row],
        rounds: &[Notes],
        failures: &BTreeMap<String, String>,
    ) -> Self {
        let lines = rows.iter().map(|row| {
            let figures: Vec<f64> = rounds.iter().filter_map(row.figure).filter(|figure| figure.is_finite()).collect();
            let median = median(&figures);
            Line {
                name: row.name,
                what: row.what,
                unit: row.unit,
                bound: row.bound,
                least: row.least,
                aim: row.aim,
                rounds: figures,
                median,
                reached: median.and_then(|figure| row.is_reached(figure)),
            }
        });
        let names = rounds.iter().flat_map(|notes| notes.all().keys().cloned());
        let of_all = |name: &str| rounds.iter().filter_map(|notes| notes.get(name)).collect::<Vec<f64>>();
        Self {
            machine: machine.clone(),
            scale: scale.clone(),
            rows: lines.collect(),
            measured: names.filter_map(|name| Some((name.clone(), median(&of_all(&name))?))).collect(),
            written: rounds.iter().flat_map(|notes| notes.written.clone()).collect(),
            failures: failures.clone(),
        }
    }

    /// As Markdown.
    pub(crate) fn table(&self) -> String {
        let mut table = "| row | what | figure | at least / most | aim | |\n|---|---|---|---|---|---|\n".to_owned();
        for line in &self.rows {
            let sign = if line.bound == Bound::AtLeast { "≥" } else { "≤" };
            let asked = line.least.map_or_else(String::new, |least| format!("{sign} {}", number(least)));
            let aim = line.aim.map_or_else(String::new, |aim| format!("{sign} {}", number(aim)));
            let figure = line.median.map_or_else(|| "not measured".to_owned(), number);
            let verdict = match line.reached {
                Some(true) => "reached",
                Some(false) => "**missed**",
                None => "",
            };
            let Line { name, what, unit, .. } = line;
            let _ = writeln!(table, "| `{name}` | {what} | {figure} {unit} | {asked} | {aim} | {verdict} |");
        }
        table
    }

    /// docs/benchmarks.md.
    pub(crate) fn page(&self) -> String {
        let Machine { cpu, cores, memory_gib, kernel, etcd, file_system, fdatasync_p50_ms, load_before, commit } =
            &self.machine;
        let Scale { rounds, processes, no_ops, million, .. } = &self.scale;
        let mut page = format!(
            "<!-- Written by `make bench PUBLISH=1`; do not edit. -->\n# Benchmarks\n\n\
             `make bench` measures all of this again, `make bench ONLY=process-spawn` one row, `QUICK=1` a smaller form of it. \
             Everything is in [benchmarks.json](benchmarks.json): each round's figure of each row, and all that was measured.\n\n\
             **The machine.** {cpu}, {cores} cores, {memory_gib} GiB, {kernel}, {etcd}, {file_system}; an append with fdatasync \
             takes {fdatasync_p50_ms:.2} ms. All parts, clients and load generators too, share its cores. Load before the run: \
             {load_before}. Commit {commit}.\n\n\
             **How.** {rounds} interleaved rounds; each figure is computed within its round, and the table has the medians. \
             S is the rate and T the median time of starting `/bin/true` by posix_spawn, two at once; C is the median time of one \
             client's guarded transaction on a three-member etcd. Jobs of processes have {processes} tasks, those of no-ops \
             {no_ops}, and the largest {million}. Commits and bytes are what etcd's own metrics say. Simulated executors are \
             `muster bench executors`: they speak the real wire and start nothing.\n\n"
        );
        if *load_before > *cores as f64 {
            page.push_str(
                "**Others worked on this machine during the run.** Ratios within a round are rough, rates say little; the run \
                 is to be repeated on a quiet machine.\n\n",
            );
        }
        page.push_str(&self.table());
        if !self.failures.is_empty() {
            page.push_str("\n**Not measured:**\n\n");
            for (what, why) in &self.failures {
                let _ = writeln!(page, "- {what}: {}", why.lines().next().unwrap_or_default());
            }
        }
        page.push_str(
            "\n## What is written\n\nBytes of keys and values put into etcd for each task, by kind of record.\n\n",
        );
        page.push_str(
            "| load | kind | puts per 1,000 tasks | bytes per task | largest value |\n|---|---|---|---|---|\n",
        );
        for (load, (tasks, Written(kinds))) in &self.written {
            for (kind, Kind { puts, bytes, largest, .. }) in kinds {
                let (per_thousand, per_task) =
                    (*puts as f64 * 1e3 / f64::from(*tasks), *bytes as f64 / f64::from(*tasks));
                let _ = writeln!(page, "| {load} | `{kind}` | {per_thousand:.2} | {per_task:.1} | {largest} |");
            }
        }
        page
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 1000.0 => {
            let digits = format!("{value:.0}");
            let split = digits.len() - 3;
            format!("{},{}", &digits[..split], &digits[split..])
        }
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        large if large >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
