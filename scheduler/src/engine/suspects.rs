//! Tasks that take executors down with them: a kernel panic that they bring about, all of a machine's memory, a signal to the
//! wrong process. A budget for lost executors is made for machines that fail; such a task would spend it on one executor after the other.
//!
//! A task is *suspect* while its attempts end with their executors, and counts the times: those on executors that
//! have not gone down without it since. From [`ON_TRIAL_AT`] on it is on trial: it is held back for a while, so that executors come
//! back, and begins apart from other tasks on trial. An executor that goes down with some of them is charged to the one whose trial has
//! just begun; if there is not just one such, to nobody, and from then on trials begin twice as far apart. At [`GIVEN_UP_AT`] a
//! task is given up, whatever its budget. An attempt that ends otherwise clears it, and one that has run for long is not suspected
//! ([ADR 15](../../../docs/adr/0015-executors-and-tasks-that-fail.md)).
//!
//! **Invariant:** one loss of an executor gives at most one task up: one whose trial had just begun, and no other's.
//!
//! This is one scheduler's memory: who takes a job over begins to count anew, and the job's own budget holds meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use muster_graph::execution::{Event, Verdict};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};

use super::Engine;

/// Once is an accident.
const ON_TRIAL_AT: u32 = 2;
/// Twice in whatever company, and twice by itself.
const GIVEN_UP_AT: u32 = 4;
/// Whoever ran for so long before the executor went down is not suspected: long tasks meet more accidents.
const QUICK_MS: Millis = 600_000;
/// Before the first trial, and four times as long before each later one: a keeper has started the executor again by then.
const PAUSE_FIRST_MS: Millis = 5_000;
/// Trials begin so far apart at first, and take so long: whoever takes executors down mostly does so sooner.
const APART_FIRST_MS: Millis = 10_000;
/// And at most so far.
const APART_MAX_MS: Millis = 80_000;
/// Nobody waits longer for a trial: if there are many, some begin together, and are not charged.
const WAIT_MAX_MS: Millis = 120_000;
/// Beyond it nobody comes under suspicion: as many tasks as a few large executors run.
const SUSPECTS_MAX: usize = 10_000;

type Name = (JobId, TaskId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    of: BTreeMap<Name, Suspect>,
    executors: BTreeMap<String, Losses>,
    /// Since when executors are out of reach: their loss is told later.
    silent: BTreeMap<String, Millis>,
    next_trial_at: Millis,
    /// How often trials were not far enough apart.
    doublings: u32,
}

#[derive(Debug, Default)]
struct Suspect {
    with: BTreeMap<String, Times>,
    /// Where its newest attempt is, and since when, if that is known.
    newest: Option<(ExecutorKey, Millis)>,
}

/// How often an executor went down with a task, from its loss of this number on, without those that nobody was charged with.
#[derive(Debug, Clone, Copy)]
struct Times {
    times: u32,
    first: u32,
}

/// Who is charged with the loss of an executor, of those who were there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Charged {
    #[default]
    Everybody,
    /// The only one there whose trial had just begun.
    One(Name),
    /// There were several, or all had been there for a while.
    Nobody,
}

/// An executor's losses.
#[derive(Debug, Default)]
struct Losses {
    /// The life that ended last.
    life: u64,
    number: u32,
    charged: Charged,
    /// When the one that is charged is tried again: before all others, so that it is not the last again if another one is to blame.
    next_trial_at: Millis,
}

impl Suspects {
    /// An executor's life has ended, which may be told more than once.
    fn went_down(&mut self, executor: &ExecutorKey, on_purpose: bool, now: Millis) {
        let silent = self.silent.remove(&executor.id).unwrap_or(now);
        let known = self.executors.get(&executor.id);
        if known.is_some_and(|losses| losses.life >= executor.incarnation) {
            return;
        }
        if on_purpose {
            self.executors.entry(executor.id.clone()).or_default().life = executor.incarnation;
            return;
        }
        let on_trial = self.of.iter().filter(|(_, suspect)| suspect.times(&self.executors) >= ON_TRIAL_AT);
        let there: Vec<(Millis, Name)> = on_trial
            .filter_map(|(name, suspect)| {
                let (on, since) = suspect.newest.as_ref()?;
                let is_there = on.id == executor.id && on.incarnation <= executor.incarnation;
                // It may have been back in between.
                let ran = silent.checked_sub(*since).unwrap_or(now.saturating_sub(*since));
                (is_there && ran <= QUICK_MS).then_some((ran, *name))
            })
            .collect();
        let mut new = there.iter().filter(|(ran, _)| *ran < self.apart()).map(|(_, name)| *name);
        let charged = match (new.next(), new.next()) {
            _ if there.is_empty() => Charged::Everybody,
            (Some(name), None) => Charged::One(name),
            _ => Charged::Nobody,
        };
        let number = known.map_or(0, |losses| losses.number) + 1;
        self.doublings += u32::from(charged == Charged::Nobody);
        let mut losses = Losses { life: executor.incarnation, number, charged, next_trial_at: 0 };
        if let Charged::One(name) = charged {
            losses.next_trial_at = self.trial_at(self.of[&name].times(&self.executors) + 1, now);
        }
        self.executors.insert(executor.id.clone(), losses);
    }

    /// A task had an attempt there. What follows for it, if anything does, and why.
    fn charge(&mut self, name: Name, executor: &str, now: Millis) -> Option<(Verdict, String)> {
        let &Losses { number, charged, next_trial_at, .. } =
            self.executors.get(executor).filter(|losses| losses.number > 0)?;
        let counts = charged == Charged::Everybody || charged == Charged::One(name);
        if !self.of.contains_key(&name) && (!counts || self.of.len() >= SUSPECTS_MAX) {
            return None;
        }
        let suspect = self.of.entry(name).or_default();
        if suspect.newest.take().is_some_and(|(_, since)| now.saturating_sub(since) > QUICK_MS) {
            return None;
        }
        let with = suspect.with.entry(executor.to_owned()).or_insert(Times { times: 0, first: number });
        if !with.is_each_up_to(number - 1) {
            *with = Times { times: 0, first: number };
        }
        match counts {
            true => with.times += 1,
            false => with.first += 1,
        }
        let suspect = &self.of[&name];
        let times = suspect.times(&self.executors);
        if times >= GIVEN_UP_AT && charged == Charged::One(name) {
            let names: Vec<&str> = suspect.with.keys().map(String::as_str).take(GIVEN_UP_AT as usize).collect();
            let message = format!(
                "not tried again: its executor went down with it {times} times, and not without it ({})",
                names.join(", ")
            );
            self.clear(name);
            return Some((Verdict::GivenUp, message));
        }
        (times >= ON_TRIAL_AT).then(|| {
            let message =
                format!("executor {executor} went down, as before with this task; it waits, and is tried by itself");
            let until = if charged == Charged::One(name) { next_trial_at } else { self.trial_at(times, now) };
            (Verdict::HeldBack { until }, message)
        })
    }

    /// When a task is tried again.
    fn trial_at(&mut self, times: u32, now: Millis) -> Millis {
        let pause = PAUSE_FIRST_MS << (2 * (times - ON_TRIAL_AT).min(4));
        let at = (now + pause.min(WAIT_MAX_MS)).max(self.next_trial_at).min(now + WAIT_MAX_MS);
        self.next_trial_at = at + self.apart();
        at
    }

    /// How far apart trials begin, and how long they take.
    fn apart(&self) -> Millis {
        (APART_FIRST_MS << self.doublings.min(8)).min(APART_MAX_MS)
    }

    /// An attempt of the task is given to an executor.
    pub(super) fn begins(&mut self, name: Name, on: &ExecutorKey, now: Millis) {
        if let Some(suspect) = self.of.get_mut(&name) {
            suspect.newest = Some((on.clone(), now));
        }
    }

    /// An attempt of the task ended, and its executor did not.
    pub(super) fn clear(&mut self, name: Name) {
        if self.of.remove(&name).is_some() {
            self.rest();
        }
    }

    pub(super) fn forget(&mut self, job: JobId) {
        self.of
            .extract_if((job, TaskId::new(0, 0))..=(job, TaskId::new(u32::MAX, u32::MAX)), |_, _| true)
            .for_each(drop);
        self.rest();
    }

    /// Without suspects there is nothing to remember.
    fn rest(&mut self) {
        if self.of.is_empty() {
            *self = Self::default();
        }
    }
}

impl Suspect {
    /// How often executors went down with it, of those that did not do so without it.
    fn times(&self, executors: &BTreeMap<String, Losses>) -> u32 {
        let number = |executor| executors.get(executor).map_or(0, |losses: &Losses| losses.number);
        self.with
            .iter()
            .filter(|(executor, with)| with.is_each_up_to(number(*executor)))
            .map(|(_, with)| with.times)
            .sum()
    }
}

impl Times {
    /// Whether it was there at all of the executor's losses from the first up to this one.
    fn is_each_up_to(self, number: u32) -> bool {
        self.first + self.times == number + 1
    }
}

impl Engine {
    /// An executor has lost a life that was not ended on purpose, with whatever a job had there that did not survive. Said before
    /// the job is told of it.
    pub(super) fn blame(
        &mut self,
        id: JobId,
        executor: &ExecutorKey,
        survived: &BTreeSet<(TaskId, Attempt)>,
        now: Millis,
    ) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut gone = job.graph.held_up_to(executor);
        gone.retain(|attempt| !survived.contains(attempt));
        if gone.is_empty() {
            return;
        }
        self.suspects.went_down(executor, false, now);
        for (task, attempt) in gone {
            let Some((verdict, message)) = self.suspects.charge((id, task), &executor.id, now) else { continue };
            if verdict == Verdict::GivenUp {
                tracing::warn!(job = %id, ?task, attempt, executor = executor.id, "task given up: it takes executors down");
                self.counts.tasks_given_up += 1;
            }
            let event = Event::WentDown { task, attempt, with: executor.clone(), verdict, message };
            self.apply(id, event, now);
        }
    }

    /// An executor is out of reach.
    pub(super) fn fell_silent(&mut self, executor: &str, now: Millis) {
        if !self.suspects.of.is_empty() && !self.suspects.silent.contains_key(executor) {
            self.suspects.silent.insert(executor.to_owned(), now);
        }
    }

    /// A life of an executor has ended, whoever had something there.
    pub(super) fn went_down(&mut self, executor: &ExecutorKey, on_purpose: bool, now: Millis) {
        // It says something of those alone who are suspected.
        if !self.suspects.of.is_empty() && executor.incarnation > 0 {
            self.suspects.went_down(executor, on_purpose, now);
        }
    }
}
