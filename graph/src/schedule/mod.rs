//! When a schedule's jobs run: which of its times are due, and what becomes of them.
//!
//! Pure, like everything here: the time is handed in, and the time zones are those that are compiled in, so that all
//! schedulers of one version agree on when a tick is, whatever their machines have installed.
//!
//! # The rules
//!
//! A **tick** is an instant that a [`Timetable`] names. Each tick is decided once, in their order: it runs, it waits, or it is passed over.
//! [`Progress`] remembers up to which instant that is done, so a clock that goes back fires nothing again, and one that jumps
//! ahead makes ticks late, not lost.
//!
//! - A tick is **on time** up to [`ON_TIME_MS`] after its instant: longer than a failover takes. It runs; while the job of an earlier one is
//!   unfinished, or earlier ones wait, [`Overlap`] decides.
//! - A later one was **missed**: [`Missed`] decides. None of those older than the rules' `window` runs. What is to be made up for waits in line
//!   and runs one after the other, whatever [`Overlap`] says.
//!
//! In the hour that a change of the clocks leaves out, a tick at a fixed time of the day comes as soon as it is over; in one that comes
//! twice, it comes the first time only. Ticks of intervals (`*/15 * * * *`) go on evenly through both.

mod timetable;

pub use timetable::{CRON_CHARS_MAX, Timetable, TimetableError, in_words};

use crate::ids::Millis;

/// The variable in which a scheduled job's tasks find their tick, in UTC. Given to the expanded job, never by a spec.
pub const TICK_VARIABLE: &str = "MUSTER_TICK";

/// How late a tick may be and still be on time: a failover of schedulers takes less.
pub const ON_TIME_MS: Millis = 60_000;

/// So many ticks wait at most: the record that holds them is written with each.
pub const WAITING_MAX: usize = 100;

/// What happens to a tick that is on time while the job of an earlier one is unfinished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// It is passed over.
    #[default]
    Skip,
    /// It waits; those that wait run one after the other.
    Queue,
    /// It runs, and the unfinished job is cancelled.
    Replace,
}

/// What happens to ticks at whose time no scheduler was there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missed {
    /// They are passed over.
    None,
    /// One run makes up for all of them: that of the newest one, or of a tick that is on time just then.
    #[default]
    One,
    /// Each of them runs, the oldest first.
    All,
}

/// What a schedule wants for ticks that do not go smoothly.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// Ticks that meet an unfinished job.
    pub overlap: Overlap,
    /// Ticks that nobody saw.
    pub missed: Missed,
    /// How old a missed tick may be and still be made up for; `None`: as old as it likes.
    pub window: Option<Millis>,
}

/// How far a schedule is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every tick up to this instant, included, is decided.
    pub decided_until: Millis,
    /// Ticks that are to run, the oldest first.
    pub waiting: Vec<Millis>,
}

/// A tick that runs now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its instant.
    pub tick: Millis,
    /// The unfinished job of an earlier one is to be cancelled.
    pub replaces: bool,
}

/// Ticks that never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassedOver {
    /// The first one.
    pub first: Millis,
    /// The last one; the same if it is one only.
    pub last: Millis,
    /// Why.
    pub why: Why,
}

/// Why ticks never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The job of an earlier one was unfinished.
    Overlap,
    /// As many waited as may.
    QueueFull,
    /// They were missed, and are not made up for.
    Missed,
    /// A later one runs in their place.
    MadeUpFor,
}

/// What to do now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// At most one; ask again once it has its job.
    pub run: Option<Due>,
    /// For people.
    pub passed_over: Vec<PassedOver>,
    /// To be stored together with the job of `run`.
    pub progress: Progress,
}

impl Progress {
    /// Of a schedule that is made, changed or resumed at `now`: what was before does not concern it.
    #[must_use]
    pub fn from_now(now: Millis) -> Self {
        Self { decided_until: now, waiting: Vec::new() }
    }

    /// Decides what is due at `now`. `busy`: the job of an earlier tick is unfinished.
    #[must_use]
    pub fn step(&self, timetable: &Timetable, rules: Rules, now: Millis, busy: bool) -> Step {
        let mut step = Step { progress: self.clone(), ..Step::default() };
        let on_time_after = now.saturating_sub(ON_TIME_MS + 1).max(self.decided_until);
        let fresh: Vec<Millis> = timetable.between(on_time_after, now).collect();
        if step.missed(timetable, rules, now, on_time_after, fresh.first().copied()) {
            for tick in fresh {
                step.on_time(tick, rules, busy);
            }
        }
        if step.run.is_none() && !busy && !step.progress.waiting.is_empty() {
            step.run = Some(Due { tick: step.progress.waiting.remove(0), replaces: false });
        }
        step
    }

    /// When to look again, if no job ends before: at the next tick that is not decided. `None`: there is none.
    #[must_use]
    pub fn next_look(&self, timetable: &Timetable) -> Option<Millis> {
        timetable.next_after(self.decided_until)
    }
}

impl Step {
    /// Decides the ticks that are late, up to `until`; `fresh` is one that is not. Answers whether all of them are decided.
    fn missed(
        &mut self,
        timetable: &Timetable,
        rules: Rules,
        now: Millis,
        until: Millis,
        fresh: Option<Millis>,
    ) -> bool {
        let from = self.progress.decided_until;
        let wanted_after = match (rules.missed, rules.window) {
            (Missed::None, _) => until,
            (_, Some(window)) => now.saturating_sub(window.saturating_add(1)).clamp(from, until),
            (_, None) => from,
        };
        self.pass_over_between(timetable, from, wanted_after, Why::Missed);
        self.progress.decided_until = wanted_after;
        match rules.missed {
            Missed::None => {}
            Missed::One => {
                let newest = timetable.last_until(until).filter(|tick| *tick > wanted_after);
                match (newest, fresh) {
                    (Some(_), Some(_)) => self.pass_over_between(timetable, wanted_after, until, Why::MadeUpFor),
                    (Some(newest), None) => {
                        self.pass_over_between(timetable, wanted_after, newest - 1, Why::MadeUpFor);
                        self.wait(newest);
                    }
                    (None, _) => {}
                }
            }
            Missed::All => {
                for tick in timetable.between(wanted_after, until) {
                    if self.progress.waiting.len() >= WAITING_MAX {
                        // Not lost: decided when there is room again.
                        return false;
                    }
                    self.wait(tick);
                    self.progress.decided_until = tick;
                }
            }
        }
        self.progress.decided_until = until;
        true
    }

    fn on_time(&mut self, tick: Millis, rules: Rules, busy: bool) {
        self.progress.decided_until = tick;
        let held_up = busy || self.run.is_some() || !self.progress.waiting.is_empty();
        match rules.overlap {
            _ if !held_up => self.run = Some(Due { tick, replaces: false }),
            Overlap::Skip => self.pass_over(tick, tick, Why::Overlap),
            Overlap::Queue => self.wait(tick),
            Overlap::Replace => {
                let replaces = busy;
                if let Some(earlier) = self.run.replace(Due { tick, replaces }) {
                    self.pass_over(earlier.tick, earlier.tick, Why::MadeUpFor);
                }
            }
        }
    }

    fn wait(&mut self, tick: Millis) {
        if self.progress.waiting.len() < WAITING_MAX {
            self.progress.waiting.push(tick);
        } else {
            self.pass_over(tick, tick, Why::QueueFull);
        }
    }

    fn pass_over(&mut self, first: Millis, last: Millis, why: Why) {
        self.passed_over.push(PassedOver { first, last, why });
    }

    /// All ticks after `after` and up to `until`, without looking at each.
    fn pass_over_between(&mut self, timetable: &Timetable, after: Millis, until: Millis, why: Why) {
        let first = timetable.next_after(after).filter(|tick| *tick <= until);
        if let (Some(first), Some(last)) = (first, timetable.last_until(until)) {
            self.pass_over(first, last, why);
        }
    }
}
