//! What `muster bench` says.

use std::io;
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use muster_executor::simulated::Counts;
use serde::Serialize;

use super::{Detail, Page};

/// What was counted at the last line.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    before: Option<(Timestamp, u64)>,
}

impl Rate {
    fn of(&mut self, now: Timestamp, finished: u64) -> Option<f64> {
        let (then, before) = self.before.replace((now, finished))?;
        let seconds = now.duration_since(then).as_secs_f64();
        (seconds > 0.0).then(|| finished.saturating_sub(before) as f64 / seconds)
    }
}

/// What simulated executors have done so far.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Progress {
    pub(crate) at_ms: i64,
    /// Executors that have a session.
    pub(crate) registered: u64,
    pub(crate) launched: u64,
    pub(crate) running: u64,
    pub(crate) finished: u64,
    pub(crate) cancelled: u64,
    pub(crate) refused: u64,
    pub(crate) settled: u64,
    /// Of all of them together.
    pub(crate) slots: u64,
    /// Tasks that came to their end since the last line; null in the first one.
    pub(crate) finished_per_second: Option<f64>,
}

impl Progress {
    pub(crate) fn new(counts: &Counts, slots: u64, rate: &mut Rate) -> Self {
        let now = Timestamp::now();
        let finished = counts.finished.load(Ordering::Relaxed);
        Self {
            at_ms: now.as_millisecond(),
            registered: counts.registered.load(Ordering::Relaxed),
            launched: counts.launched.load(Ordering::Relaxed),
            running: counts.running.load(Ordering::Relaxed),
            finished,
            cancelled: counts.cancelled.load(Ordering::Relaxed),
            refused: counts.refused.load(Ordering::Relaxed),
            settled: counts.settled.load(Ordering::Relaxed),
            slots,
            finished_per_second: rate.of(now, finished),
        }
    }
}

impl Detail for Progress {
    fn name(&self) -> String {
        self.finished.to_string()
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let rate = self.finished_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
        let Self { registered, running, slots, finished, .. } = self;
        page.headline(&format!(
            "{registered} executors, {running} of {slots} slots busy, {finished} tasks done, {rate} in the last second"
        ))
    }
}
