//! Executors that fail everything: a full disk, a broken mount, a missing interpreter. They are free again at once, so they
//! would swallow a whole queue. One that fails where others would have succeeded is in *quarantine*: it gets one attempt
//! at a time, after a pause that doubles, until one succeeds ([ADR 15](../../../docs/adr/0015-executors-and-tasks-that-fail.md)).
//!
//! **What counts.** Only what failed there since something last succeeded there: its *streak*. Each failure weighs as much as the same stage
//! succeeds elsewhere, from 0 to 1, by what ended elsewhere since it first failed here. A stage of which nothing ended
//! elsewhere says less: all such stages of a job together weigh one failure, by how everything fared elsewhere. A process
//! that the executor could not even begin weighs [`NOT_STARTED_WEIGHS`]. At [`CONVINCED_AT`] the executor is judged.
//!
//! **Invariant:** whatever fails everywhere weighs nothing, so no job can put an executor in quarantine by itself but with the word of
//! others that succeed with the same stage.
//!
//! **Invariant:** no more than half of the executors that could take work enter quarantine. What is kept here is this scheduler's
//! opinion, in memory: each judges by what it sees, and a new life of an executor begins without one.

use std::collections::BTreeMap;

use muster_graph::ids::{ExecutorKey, JobId, Millis, StageIndex};
use muster_proto::v1;

use super::Engine;
use super::executors::{Executor, HeldKey};

/// Weights are thousandths of a failure.
const WHOLE: u64 = 1000;
/// If an executor were like the others, it would have had so many successes: the odds that it had none by chance are less than
/// one in a hundred (e⁻⁵), and an executor that succeeds once in five ends is never judged.
const CONVINCED_AT: u64 = 5 * WHOLE;
/// That no process could be begun (no directory, no supervisor) is hardly a task's doing: three in a row convince.
const NOT_STARTED_WEIGHS: u64 = 2 * WHOLE;
/// Stages in a streak, at most; the job counts of more are not needed to be convinced.
const STREAK_STAGES_MAX: usize = 64;
/// Before the first try. A retry has mostly moved elsewhere by then.
const PAUSE_FIRST_MS: Millis = 5_000;
/// The pause doubles with each try that fails, up to this: a mended executor is back without anybody's help.
const PAUSE_MAX_MS: Millis = 320_000;
/// Of what the executor said about the last failure, so many bytes are kept.
const MESSAGE_BYTES_MAX: usize = 200;

/// What an attempt's end says of the executor where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sign {
    Succeeded,
    Failed,
    NotStarted,
    /// It was stopped, refused for lack of room, or used more memory than it asked for: wherever it was.
    Nothing,
}

impl Sign {
    fn of(end: &v1::AttemptFinished) -> Self {
        use v1::Outcome;
        let ran_to_its_end = || end.exit.is_some_and(|exit| exit.how == Some(v1::exit::How::Code(0)));
        match end.outcome() {
            Outcome::Succeeded => Self::Succeeded,
            Outcome::Failed | Outcome::TimedOut | Outcome::InputUnreadable => Self::Failed,
            Outcome::ExecutorLost if end.started_at_ms == 0 => Self::NotStarted,
            // What it made could not be kept.
            Outcome::ExecutorLost if ran_to_its_end() => Self::Failed,
            _ => Self::Nothing,
        }
    }
}

/// How attempts ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    succeeded: u64,
    failed: u64,
}

impl Tally {
    /// How many of a thousand succeeded, of those that ended since `then` and did not fail `here`. `None`: none ended.
    fn share_since(self, then: Self, here: u64) -> Option<u64> {
        // Of a job that went away and came back less is known than before.
        let succeeded = self.succeeded.saturating_sub(then.succeeded);
        let failed = self.failed.saturating_sub(then.failed + here);
        (succeeded * WHOLE).checked_div(succeeded + failed)
    }
}

/// How everything ended that was told to this scheduler.
#[derive(Debug, Default)]
pub(super) struct Ends {
    all: Tally,
    stages: BTreeMap<(JobId, StageIndex), Tally>,
}

impl Ends {
    pub(super) fn forget(&mut self, job: JobId) {
        self.stages.extract_if((job, StageIndex(0))..=(job, StageIndex(u32::MAX)), |_, _| true).for_each(drop);
    }
}

/// A stage in a streak.
#[derive(Debug)]
struct Failed {
    here: u64,
    /// How it stood before it failed here.
    then: Tally,
}

/// What this scheduler thinks of an executor's present life.
#[derive(Debug, Default)]
pub(super) struct Opinion {
    /// What failed since something succeeded.
    streak: BTreeMap<(JobId, StageIndex), Failed>,
    ends: u64,
    not_started: u64,
    /// How everything stood before the streak.
    then: Tally,
    quarantine: Option<Quarantine>,
}

/// An executor is kept from work, but for what it is tried with.
#[derive(Debug)]
pub(crate) struct Quarantine {
    since: Millis,
    /// Why, for people.
    why: String,
    pause: Millis,
    /// Nothing is given to it before.
    until: Millis,
    /// The scheduler is to look at it then, if it has not yet.
    look_at: Option<Millis>,
    probe: Option<HeldKey>,
}

/// What became of an executor by an end.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    AsBefore,
    Guilty { why: String },
    Freed,
}

impl Opinion {
    /// Takes an attempt's end into account.
    fn ended(&mut self, ends: &mut Ends, key: HeldKey, end: &v1::AttemptFinished, now: Millis) -> Verdict {
        let (sign, stage) = (Sign::of(end), (key.0, key.1.stage));
        let tried = self.quarantine.as_mut().and_then(|quarantine| quarantine.probe.take_if(|probe| *probe == key));
        let then = (ends.all, ends.stages.get(&stage).copied().unwrap_or_default());
        match sign {
            Sign::Nothing => return Verdict::AsBefore,
            Sign::Succeeded => {
                ends.all.succeeded += 1;
                ends.stages.entry(stage).or_default().succeeded += 1;
                return match std::mem::take(self).quarantine {
                    Some(_) => Verdict::Freed,
                    None => Verdict::AsBefore,
                };
            }
            Sign::Failed | Sign::NotStarted => {
                ends.all.failed += 1;
                ends.stages.entry(stage).or_default().failed += 1;
            }
        }
        if tried.is_some()
            && let Some(quarantine) = &mut self.quarantine
        {
            quarantine.pause = (2 * quarantine.pause).min(PAUSE_MAX_MS);
            quarantine.rest(now);
        }
        if self.ends == 0 {
            self.then = then.0;
        }
        self.ends += 1;
        self.not_started += u64::from(sign == Sign::NotStarted);
        if self.streak.len() < STREAK_STAGES_MAX || self.streak.contains_key(&stage) {
            self.streak.entry(stage).or_insert(Failed { here: 0, then: then.1 }).here += 1;
        }
        match self.quarantine.is_none() && self.weight(ends) >= CONVINCED_AT {
            true => Verdict::Guilty { why: self.in_words(&end.message) },
            false => Verdict::AsBefore,
        }
    }

    /// How much speaks against the executor.
    fn weight(&self, ends: &Ends) -> u64 {
        let everything = ends.all.share_since(self.then, self.ends).unwrap_or(0);
        let mut weight = self.not_started * NOT_STARTED_WEIGHS;
        let mut last_unknown = None;
        for ((job, stage), Failed { here, then }) in &self.streak {
            let elsewhere = ends.stages.get(&(*job, *stage)).and_then(|tally| tally.share_since(*then, *here));
            match elsewhere {
                Some(share) => weight += here * share,
                None if last_unknown.replace(*job) != Some(*job) => weight += everything,
                None => {}
            }
        }
        weight
    }

    fn in_words(&self, last: &str) -> String {
        let (ends, jobs) =
            (self.ends, self.streak.keys().map(|(job, _)| job).collect::<std::collections::BTreeSet<_>>());
        let of = match jobs.len() {
            1 => "of one job".to_owned(),
            jobs => format!("of {jobs} jobs"),
        };
        let last = &last[..last.floor_char_boundary(MESSAGE_BYTES_MAX)];
        let last = if last.is_empty() { "" } else { &format!("; the last one: {last}") };
        if self.not_started * NOT_STARTED_WEIGHS >= CONVINCED_AT {
            return format!(
                "the last {ends} attempts there came to nothing, {} of them could not be started{last}",
                self.not_started
            );
        }
        format!("the last {ends} attempts there, {of}, failed, and others succeeded elsewhere meanwhile{last}")
    }
}

impl Quarantine {
    fn new(why: String, now: Millis) -> Self {
        let mut new = Self { since: now, why, pause: PAUSE_FIRST_MS, until: now, look_at: None, probe: None };
        new.rest(now);
        new
    }

    /// Nothing more for a while.
    fn rest(&mut self, now: Millis) {
        self.until = now.saturating_add(self.pause);
        self.look_at = Some(self.until);
    }

    /// What it did.
    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    pub(super) fn since(&self) -> Millis {
        self.since
    }

    pub(super) fn until(&self) -> Millis {
        self.until
    }

    /// Whether it may be tried now.
    pub(super) fn may_try(&self, now: Millis) -> bool {
        self.until <= now
    }
}

impl Executor {
    /// Why it is kept from work, if it is.
    pub(crate) fn quarantine(&self) -> Option<&Quarantine> {
        self.opinion.quarantine.as_ref()
    }

    /// What was just given to it is to show whether it is right again. If that takes long, another one may show it: whoever
    /// fails everything mostly does so at once.
    pub(super) fn tries(&mut self, key: HeldKey, now: Millis) {
        if let Some(quarantine) = &mut self.opinion.quarantine {
            quarantine.probe = Some(key);
            quarantine.rest(now);
        }
    }

    /// Whether nothing has succeeded there since something failed.
    pub(super) fn is_doubted(&self) -> bool {
        self.opinion.ends > 0
    }

    /// When the scheduler is to look whether there is something for it to try.
    pub(super) fn try_at(&self) -> Option<Millis> {
        self.quarantine()?.look_at
    }

    pub(super) fn looked_at(&mut self, now: Millis) {
        if let Some(quarantine) = &mut self.opinion.quarantine {
            quarantine.look_at.take_if(|at| *at <= now);
        }
    }
}

impl Engine {
    /// An attempt of ours has ended on an executor.
    pub(super) fn judge(&mut self, by: &ExecutorKey, attempt: HeldKey, end: &v1::AttemptFinished, now: Millis) {
        use v1::Outcome;
        if matches!(end.outcome(), Outcome::Succeeded | Outcome::Failed | Outcome::TimedOut | Outcome::OutOfMemory) {
            self.suspects.clear((attempt.0, attempt.1));
        }
        let Some(executor) = self.executors.get_mut(&by.id).filter(|executor| executor.key == *by) else { return };
        if executor.draining {
            // It may be about to stop what it has not begun.
            return;
        }
        match executor.opinion.ended(&mut self.ends, attempt, end, now) {
            Verdict::AsBefore => {}
            Verdict::Freed => tracing::info!(executor = by.id, "executor is out of quarantine: an attempt succeeded"),
            Verdict::Guilty { why } if self.may_quarantine_one_more() => {
                tracing::warn!(executor = by.id, why, "executor is in quarantine: it gets one attempt at a time");
                let executor = self.executors.get_mut(&by.id).expect("it was there above");
                executor.opinion.quarantine = Some(Quarantine::new(why, now));
            }
            Verdict::Guilty { why } => {
                tracing::debug!(executor = by.id, why, "half of the executors are in quarantine; this one is spared");
            }
        }
    }

    fn may_quarantine_one_more(&self) -> bool {
        // One that drains takes no work anyway.
        let able = self.executors.values().filter(|executor| executor.is_reachable() && !executor.draining);
        let (able, inside) = able
            .fold((0, 0), |(able, inside), executor| (able + 1, inside + usize::from(executor.quarantine().is_some())));
        2 * (inside + 1) <= able
    }

    /// How many executors are in quarantine here.
    pub(crate) fn executors_quarantined(&self) -> usize {
        self.executors.values().filter(|executor| executor.quarantine().is_some()).count()
    }
}

#[cfg(test)]
mod tests;
