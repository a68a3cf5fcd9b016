//! Running ahead: work that waits on an executor for its share, so that a slot which becomes free begins the next short task at
//! once, without a report, a commit and a launch in between.
//!
//! How much may wait is a matter of time: what the slots that hold short tasks of ours will do in [`AHEAD_US`]. A stage's
//! tasks count as short by what those before took; of a stage that nobody knows yet, and of long tasks, nothing waits. Tasks
//! wait only when no executor has room for them ([`crate::placement`]). Of one scheduler's tasks that wait an executor takes the
//! oldest first, and of several schedulers' the one's that has least there; each has an equal part of its backlog.
//!
//! **Invariant:** whatever the estimate was worth, a wait ends. What has not begun after [`LATE_AFTER_MS`] is asked back: the
//! executor ends what has not begun, under a number that is never used again, and says so like any other result, so that it
//! is placed anew, in the order in which it is owed now. Until then nothing more waits there.

use std::collections::{BTreeMap, VecDeque};

use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::Resources;

use super::Engine;
use super::account::Booking;
use super::executors::{Executor, HeldKey};
use super::launch::Which;
use crate::placement::Backlog;

/// How far ahead work is sent, in microseconds of the slots that it is for: some times the way from an end through a busy
/// store to the next start, and little enough that whoever is behind hardly waits.
const AHEAD_US: u64 = 100_000;
/// What was sent ahead and has not begun after so long, for each of the schedulers that may have work before it, waits for
/// something that takes longer than it was thought to.
pub(super) const LATE_AFTER_MS: Millis = 300;
/// An executor that had to be asked for work back gets none ahead for so long, or until it has ended something; it doubles.
const PAUSE_MS: Millis = 1_000;
/// How often these double: to some minutes.
const DOUBLINGS_MAX: u32 = 8;
/// A task that takes executors down with it is quick, and whatever waits there is lost with each of them: a job that lost
/// something with an executor sends nothing ahead for so long.
pub(super) const CAREFUL_MS: Millis = 60_000;

/// How long a job's tasks take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    expected_us: BTreeMap<StageIndex, u64>,
    not_before: Millis,
}

impl Pace {
    /// A task ran for so long. What is expected rises at once and falls slowly: too little ahead costs a little time, too
    /// much makes others wait.
    pub(super) fn observe(&mut self, stage: StageIndex, ran_ms: Millis) {
        // Times are cut to whole milliseconds.
        let took_us = ran_ms.saturating_add(1).saturating_mul(1000);
        let expected = self.expected_us.entry(stage).or_insert(took_us);
        *expected = if took_us >= *expected { took_us } else { *expected - (*expected - took_us) / 8 };
    }

    /// How long a task of the stage is expected to take, if any has ended.
    pub(super) fn expected(&self, stage: StageIndex) -> Option<Millis> {
        self.expected_us.get(&stage).map(|us| us.div_ceil(1000))
    }

    /// What a task of the stage is expected to keep busy, in thousandths of a core times microseconds, if that is short.
    pub(super) fn work(&self, stage: StageIndex, resources: &Resources, now: Millis) -> Option<u64> {
        let expected_us = *self.expected_us.get(&stage)?;
        let is_short = expected_us <= AHEAD_US && self.not_before <= now;
        is_short.then(|| expected_us * u64::from(resources.cpu_milli.max(1)))
    }
}

/// Our attempts that wait on an executor.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// How many may wait there, of all schedulers.
    pub(super) most: u32,
    /// Oldest first.
    queue: VecDeque<HeldKey>,
    /// What these will keep busy, in all.
    work: u64,
    /// How many of them have left for it, and what those will keep busy.
    sent: (u32, u64),
    /// Thousandths of a core that short tasks of ours have.
    short_milli: u64,
    /// Nothing more waits there until then.
    not_before: Millis,
    /// How often in a row it did not get on.
    stalls: u32,
}

impl Ahead {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[cfg(test)]
    pub(super) fn work(&self) -> u64 {
        self.work
    }

    pub(super) fn first(&self) -> Option<HeldKey> {
        self.queue.front().copied()
    }

    pub(super) fn enter(&mut self, key: HeldKey, booking: &Booking) {
        self.work += booking.work.unwrap_or(0);
        self.queue.push_back(key);
        if booking.sent {
            self.sent(booking);
        }
    }

    /// One that waits has left for it.
    pub(super) fn sent(&mut self, booking: &Booking) {
        self.sent = (self.sent.0 + 1, self.sent.1 + booking.work.unwrap_or(0));
    }

    pub(super) fn leave(&mut self, key: &HeldKey, booking: &Booking) {
        self.work -= booking.work.unwrap_or(0);
        if booking.sent {
            self.sent = (self.sent.0 - 1, self.sent.1 - booking.work.unwrap_or(0));
        }
        // Mostly the first.
        if let Some(place) = self.queue.iter().position(|waiting| waiting == key) {
            self.queue.remove(place);
        }
    }

    pub(super) fn runs(&mut self, booking: &Booking) {
        self.short_milli += short_milli(booking);
    }

    pub(super) fn ends(&mut self, booking: &Booking) {
        self.short_milli -= short_milli(booking);
    }
}

fn short_milli(booking: &Booking) -> u64 {
    if booking.work.is_some() { u64::from(booking.resources.cpu_milli) } else { 0 }
}

impl Executor {
    /// How much more may wait there.
    pub(super) fn backlog(&self, schedulers: u32, now: Millis) -> Backlog {
        let waiting = u32::try_from(self.ahead.queue.len()).unwrap_or(u32::MAX);
        let count = (self.ahead.most / schedulers).saturating_sub(waiting);
        if count == 0 || now < self.ahead.not_before {
            return Backlog::default();
        }
        Backlog { work: self.work_ahead_max().saturating_sub(self.ahead.work), count }
    }

    /// What may wait there, of ours.
    fn work_ahead_max(&self) -> u64 {
        // A start may be told before the end that made room for it.
        self.ahead.short_milli.min(u64::from(self.total.cpu_milli)) * AHEAD_US
    }

    /// Whether half of what may wait there does: then more can follow later.
    pub(super) fn has_work_ahead(&self, schedulers: u32) -> bool {
        let (count, work) = self.ahead.sent;
        count > 0 && (work >= self.work_ahead_max() / 2 || count >= self.ahead.most / schedulers / 2)
    }

    /// How many of our attempts wait there.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.ahead.queue.len()
    }

    /// It has ended something: whatever waits there gets on.
    pub(super) fn gets_on(&mut self) {
        (self.ahead.not_before, self.ahead.stalls) = (0, 0);
    }

    /// When what waits there is to be asked back. `None`: nothing waits, or it would not hear of it.
    pub(super) fn ask_back_at(&self, schedulers: u32) -> Option<Millis> {
        // By our account something may wait at an executor that lets nothing wait: that one could not be asked for less than
        // everything.
        if self.ahead.most == 0 || self.ahead.is_empty() || !self.hears() {
            return None;
        }
        // What has not left cannot be asked for.
        let booking = self.ahead.queue.iter().filter_map(|key| self.held.get(key)).find(|booking| booking.sent)?;
        let patience = match booking.asks {
            0 if self.draining => 0,
            asks => (LATE_AFTER_MS * u64::from(schedulers)) << asks.min(DOUBLINGS_MAX),
        };
        Some(booking.since.saturating_add(patience))
    }

    /// Notes that what waits there is asked back, and says what that is.
    fn ask_back(&mut self, now: Millis) -> Vec<HeldKey> {
        let mut asked = Vec::new();
        for key in &self.ahead.queue {
            if let Some(booking) = self.held.get_mut(key).filter(|booking| booking.sent) {
                booking.since = now;
                booking.asks += 1;
                asked.push(*key);
            }
        }
        self.ahead.not_before = now + (PAUSE_MS << self.ahead.stalls.min(DOUBLINGS_MAX));
        self.ahead.stalls += 1;
        asked
    }
}

impl Engine {
    /// The schedulers that may send work to an executor.
    pub(super) fn schedulers_sharing(&self) -> u32 {
        u32::try_from(self.live_schedulers.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Asks for what waits for too long.
    pub(super) fn ask_back(&mut self, now: Millis) {
        let schedulers = self.schedulers_sharing();
        let mut late = Vec::new();
        for executor in self.executors.values_mut() {
            if executor.ask_back_at(schedulers).is_some_and(|at| at <= now) {
                late.push((executor.key.clone(), executor.ask_back(now)));
            }
        }
        for (executor, attempts) in late {
            tracing::debug!(executor = executor.id, attempts = attempts.len(), "asking back what does not begin");
            self.counts.attempts_asked_back += attempts.len() as u64;
            for (id, task, attempt) in attempts {
                self.send_cancel(&executor, id, task, attempt, Which::Waiting);
            }
        }
    }

    /// The job has lost something with an executor.
    pub(super) fn hold_back(&mut self, id: JobId, now: Millis) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.pace.not_before = now + CAREFUL_MS;
        }
    }
}
