//! `muster bench executors` in a process of its own, and what it says while it runs.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::cluster::muster;

/// Time between its lines: as exact as what is read from them can be.
const EVERY: &str = "20ms";
/// Until all have registered: each registration is a commit.
const REGISTER_WITHIN: Duration = Duration::from_secs(120);

/// How many of what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Executors.
    pub(crate) count: u32,
    /// Of each.
    pub(crate) slots: u32,
    /// How long a task takes.
    pub(crate) task_ms: u64,
}

/// One of its lines.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
pub(crate) struct Line {
    pub(crate) registered: u64,
    pub(crate) launched: u64,
    pub(crate) running: u64,
    pub(crate) slots: u64,
}

/// See the module. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Simulation {
    child: Child,
    count: u32,
    /// All lines, with the times at which they came. Locked to add one, or to look.
    lines: Arc<Mutex<Vec<(Instant, Line)>>>,
}

impl Drop for Simulation {
    fn drop(&mut self) {
        // Errors mean that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Simulation {
    pub(crate) fn start(size: Size, schedulers: &str, name: &str, logs: &Path) -> anyhow::Result<Self> {
        let Size { count, slots, task_ms } = size;
        let mut child = Command::new(muster()?)
            .args(["bench", "executors", "--prefix", name, "--every", EVERY, "--schedulers", schedulers, "-o", "jsonl"])
            .args(["--count", &count.to_string(), "--slots", &slots.to_string(), "--task-ms", &task_ms.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(logs.join(format!("{name}.log")))?)
            .spawn()?;
        let out = BufReader::new(child.stdout.take().expect("it was asked for"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let taken = Arc::clone(&lines);
        // Ends with the process.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    taken.lock().expect("nothing panics while holding it").push((Instant::now(), line));
                }
            }
        });
        Ok(Self { child, count, lines })
    }

    /// Waits until all of them have registered.
    pub(crate) async fn registered(&self) -> anyhow::Result<()> {
        let count = u64::from(self.count);
        self.until("they register", REGISTER_WITHIN, |line| line.registered >= count).await.map(drop)
    }

    /// Waits for a line, and says when it came.
    pub(crate) async fn until(
        &self,
        what: &str,
        within: Duration,
        mut is_wanted: impl FnMut(Line) -> bool,
    ) -> anyhow::Result<Instant> {
        let given_up_at = Instant::now() + within;
        loop {
            if let Some((at, line)) = self.last()
                && is_wanted(line)
            {
                return Ok(at);
            }
            let now = self.last();
            anyhow::ensure!(Instant::now() < given_up_at, "waited {within:?} in vain until {what}: {now:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn last(&self) -> Option<(Instant, Line)> {
        self.lines.lock().expect("nothing panics while holding it").last().copied()
    }

    /// Launches that it has had by a time.
    pub(crate) fn launched_by(&self, at: Instant) -> u64 {
        let lines = self.lines.lock().expect("nothing panics while holding it");
        lines.iter().rev().find(|(then, _)| *then <= at).map_or(0, |(_, line)| line.launched)
    }

    /// The first time from `from` on at which more were launched than before.
    pub(crate) async fn next_launch(&self, from: Instant, within: Duration) -> anyhow::Result<Instant> {
        let before = self.launched_by(from);
        self.until("something is launched", within, |line| line.launched > before).await.context("after a takeover")?;
        let lines = self.lines.lock().expect("nothing panics while holding it");
        let first = lines.iter().find(|(at, line)| *at >= from && line.launched > before);
        first.map(|(at, _)| *at).context("it was there just now")
    }

    /// Which share of the slots was busy between two times.
    pub(crate) fn busy(&self, from: Instant, to: Instant) -> anyhow::Result<f64> {
        let lines = self.lines.lock().expect("nothing panics while holding it");
        let within: Vec<&Line> =
            lines.iter().filter(|(at, _)| (from..=to).contains(at)).map(|(_, line)| line).collect();
        anyhow::ensure!(!within.is_empty(), "nothing was said between the two");
        let busy: u64 = within.iter().map(|line| line.running).sum();
        let slots: u64 = within.iter().map(|line| line.slots).sum();
        Ok(busy as f64 / slots as f64)
    }
}
