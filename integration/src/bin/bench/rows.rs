//! The table: which figures it has, what each is made of, and what it should reach. A figure is computed for each round
//! from what was measured in that round, and only then the median is taken.

use std::collections::BTreeMap;

use crate::written::Written;

/// What was measured in one round, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes {
    values: BTreeMap<String, f64>,
    /// What was written into etcd for so many tasks.
    pub(crate) written: BTreeMap<String, (u32, Written)>,
}

impl Notes {
    /// What was not there to be measured is left out.
    pub(crate) fn set(&mut self, name: &str, value: f64) {
        if value.is_finite() {
            self.values.insert(name.to_owned(), value);
        }
    }

    pub(crate) fn written(&mut self, name: &str, tasks: u32, written: Written) {
        self.written.insert(name.to_owned(), (tasks, written));
    }

    pub(crate) fn get(&self, name: &str) -> Option<f64> {
        self.values.get(name).copied()
    }

    pub(crate) fn all(&self) -> &BTreeMap<String, f64> {
        &self.values
    }
}

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    Spawn,
    Xargs,
    Commit,
    Ping,
    HyperQueue,
    Dask,
    Process,
    ProcessMemory,
    ProcessFar,
    NoOp,
    NoOpMemory,
    Single,
    SmallJobs,
    OneAndThree,
    Fleet,
    Beside,
    Million,
    Trouble,
    Groups,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast,
    AtMost,
}

/// One line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    /// For `ONLY`.
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bound: Bound,
    /// What must be reached; None: shown for its own sake.
    pub(crate) least: Option<f64>,
    pub(crate) aim: Option<f64>,
    pub(crate) needs: &'static [Measure],
    pub(crate) figure: fn(&Notes) -> Option<f64>,
}

impl Row {
    /// Whether a figure is good enough; None where nothing is asked.
    pub(crate) fn is_reached(&self, figure: f64) -> Option<bool> {
        self.least.map(|least| match self.bound {
            Bound::AtLeast => figure >= least,
            Bound::AtMost => figure <= least,
        })
    }
}

/// Of two figures of the same round.
fn ratio(notes: &Notes, above: &str, below: &str) -> Option<f64> {
    Some(notes.get(above)? / notes.get(below)?)
}

use Bound::{AtLeast, AtMost};
use Measure::{
    Beside, Commit, Dask, Fleet, Groups, HyperQueue, Million, NoOp, NoOpMemory, OneAndThree, Ping, Process, ProcessFar,
    ProcessMemory, Single, SmallJobs, Spawn, Trouble, Xargs,
};

macro_rules! row {
    ($name:literal, $what:literal, $unit:literal, $bound:ident $least:expr, $aim:expr, [$($need:ident),+], $figure:expr) => {
        Row {
            name: $name,
            what: $what,
            unit: $unit,
            bound: $bound,
            least: $least,
            aim: $aim,
            needs: &[$($need),+],
            figure: $figure,
        }
    };
}

/// The table. Sizes are those of a full run.
pub(crate) const ROWS: &[Row] = &[
    row!("process-spawn", "`/bin/true` tasks/s, one job, 2 slots, three schedulers, three-member etcd", "S", AtLeast Some(0.55), Some(0.70), [Spawn, Process], |n| ratio(n, "process.rate", "spawn.rate")),
    row!("process-xargs", "the same against `xargs -P2`", "×", AtLeast Some(0.9), Some(1.2), [Xargs, Process], |n| ratio(n, "process.rate", "xargs.rate")),
    row!("process-hyperqueue", "the same against HyperQueue through its Python client (a proxy, not HyperQueue's speed)", "×", AtLeast Some(4.0), Some(5.0), [HyperQueue, Process], |n| ratio(n, "process.rate", "hyperqueue.rate")),
    row!("process-dask", "the same against Dask's no-op functions, scheduler and worker in one process", "×", AtLeast None, None, [Dask, Process], |n| ratio(n, "process.rate", "dask.rate")),
    row!("process-memory", "the same, etcd against the memory store (one scheduler)", "×", AtLeast Some(0.80), Some(0.90), [Process, ProcessMemory], |n| ratio(n, "process.rate", "process_memory.rate")),
    row!("process-far", "the same with 3 ms added to every round trip to etcd, against without", "×", AtLeast Some(0.85), Some(0.95), [Process, ProcessFar], |n| ratio(n, "process_far.rate", "process.rate")),
    row!("noop-etcd", "no-op tasks/s, one job, simulated executors, three-member etcd", "/s", AtLeast Some(10_000.0), Some(20_000.0), [NoOp], |n| n.get("noop.rate")),
    row!("noop-memory", "the same, memory store", "/s", AtLeast Some(40_000.0), Some(100_000.0), [NoOpMemory], |n| n.get("noop_memory.rate")),
    row!("million-time", "time per task at 1,000,000 tasks against 10,000", "×", AtMost Some(1.3), Some(1.1), [Million], |n| ratio(n, "few.rate", "million.rate")),
    row!("million-bytes", "bytes written per task, the same", "×", AtMost Some(1.3), Some(1.1), [Million], |n| ratio(n, "million.bytes", "few.bytes")),
    row!("million-commits", "commits per task, the same", "×", AtMost Some(1.3), Some(1.1), [Million], |n| ratio(n, "million.commits", "few.commits")),
    row!("commits-noop", "etcd commits per task, full no-op load", "", AtMost Some(0.02), Some(0.01), [NoOp], |n| n.get("noop.commits")),
    row!("commits-process", "etcd commits per task, process tasks", "", AtMost Some(0.05), Some(0.02), [Process], |n| n.get("process.commits")),
    row!("bytes-noop", "etcd bytes (keys and values) written per no-op task", "B", AtMost Some(300.0), Some(120.0), [NoOp], |n| n.get("noop.bytes")),
    row!("bytes-process", "the same per process task", "B", AtMost Some(300.0), Some(120.0), [Process], |n| n.get("process.bytes")),
    row!("largest-mutable", "largest value of a record that is rewritten, 1,000,000 tasks", "B", AtMost Some(16_384.0), None, [Million], |n| n.get("million.largest_mutable")),
    row!("largest", "largest value of any record, 1,000,000 tasks", "B", AtMost Some(262_144.0), None, [Million], |n| n.get("million.largest")),
    row!("locks-and-ledger", "locks and ledger writes per no-op task", "", AtMost Some(0.0), Some(0.0), [NoOp], |n| n.get("noop.locks_and_ledger")),
    row!("single-p50", "one job of one process task, idle, submit to done: (p50 − 2 T) ÷ C", "C", AtMost Some(6.0), Some(4.0), [Spawn, Commit, Single], |n| Some((n.get("single.p50_ms")? - 2.0 * n.get("spawn.p50_ms")?) / n.get("commit.p50_ms")?)),
    row!("single-p99", "the same: p99 ÷ p50", "×", AtMost Some(5.0), Some(3.0), [Single], |n| ratio(n, "single.p99_ms", "single.p50_ms")),
    row!("small-jobs", "jobs of one no-op task, 64 concurrent clients", "/s", AtLeast Some(1000.0), Some(2000.0), [SmallJobs], |n| n.get("small_jobs.rate")),
    row!("cpu-noop", "scheduler CPU per no-op task", "µs", AtMost Some(60.0), Some(25.0), [NoOp], |n| n.get("noop.cpu_us")),
    row!("cpu-process", "scheduler CPU per process task", "µs", AtMost Some(120.0), Some(70.0), [Process], |n| n.get("process.cpu_us")),
    row!("three-schedulers", "three schedulers instead of one, six no-op jobs at once", "×", AtLeast Some(0.85), Some(1.0), [OneAndThree], |n| ratio(n, "three.rate", "one.rate")),
    row!("conflicts", "guard conflicts of commits with three schedulers", "", AtMost None, Some(0.001), [OneAndThree], |n| n.get("three.conflicts")),
    row!("fleet-busy", "1,000 simulated executors × 16 slots, tasks of 1 s: slots busy", "", AtLeast Some(0.95), Some(0.98), [Fleet], |n| n.get("fleet.busy")),
    row!("fleet-cpu", "the same: scheduler CPU, all three together", "cores", AtMost Some(1.0), Some(0.5), [Fleet], |n| n.get("fleet.cores")),
    row!("rss", "peak RSS of a scheduler, one job of 1,000,000 tasks", "MB", AtMost Some(400.0), Some(200.0), [Million], |n| n.get("million.rss_mb")),
    row!("fair", "small job beside another namespace's 1,000,000 tasks: (p99 to start − one task) ÷ p99 when idle; given up after 10 s", "×", AtMost Some(3.0), Some(2.0), [Beside], |n| Some((n.get("fair.beside_p99_ms")? - n.get("fair.task_ms")?) / n.get("fair.idle_p99_ms")?)),
    row!("cancel", "cancel of the 1,000,000-task job: acknowledged after", "ms", AtMost Some(100.0), Some(50.0), [Trouble], |n| n.get("cancel.ms")),
    row!("cancel-after", "the same: tasks launched more than 100 ms after the acknowledgement", "", AtMost Some(0.0), Some(0.0), [Trouble], |n| n.get("cancel.launched_after")),
    row!("takeover", "takeover of the 1,000,000-task job: first launch after the session's expiry", "s", AtMost Some(4.0), Some(2.0), [Trouble], |n| n.get("takeover.seconds")),
    row!("group-cancel", "cancel of a group of 10,000 jobs with 1,000,000 tasks: acknowledged after", "ms", AtMost Some(50.0), None, [Groups], |n| n.get("group_cancel.ms")),
    row!("group-cancel-after", "the same: tasks launched more than 100 ms after the acknowledgement", "", AtMost Some(0.0), Some(0.0), [Groups], |n| n.get("group_cancel.launched_after")),
    row!("group-cancel-ends", "the same: until the last of its jobs has ended", "s", AtMost None, None, [Groups], |n| n.get("group_cancel.ended_s")),
    row!("group-conflicts", "writes refused while 10,000 jobs of one group end at three schedulers", "", AtMost Some(0.0), Some(0.0), [Groups], |n| n.get("groups.conflicts")),
    row!("submit", "submit of the 1,000,000-task job: acknowledged after", "ms", AtMost None, None, [Trouble], |n| n.get("million.submit_ms")),
    row!("list", "10,000 of its tasks listed while it runs", "ms", AtMost None, None, [Trouble], |n| n.get("million.list_page_ms")),
    row!("limit-spawn", "limit S: `/bin/true` by posix_spawn, 2 at once", "/s", AtLeast None, None, [Spawn], |n| n.get("spawn.rate")),
    row!("limit-spawn-time", "limit T: one of these, p50", "ms", AtMost None, None, [Spawn], |n| n.get("spawn.p50_ms")),
    row!("limit-commit", "limit C: guarded transaction of one client, three-member etcd, p50", "ms", AtMost None, None, [Commit], |n| n.get("commit.p50_ms")),
    row!("limit-ping", "limit: unary gRPC calls, 64 at once, client and server together", "/s", AtLeast None, None, [Ping], |n| n.get("ping.rate")),
    row!("peer-xargs", "peer: `xargs -P2 -n1 /bin/true`", "/s", AtLeast None, None, [Xargs], |n| n.get("xargs.rate")),
    row!("peer-dask", "peer: Dask's no-op functions", "/s", AtLeast None, None, [Dask], |n| n.get("dask.rate")),
];
