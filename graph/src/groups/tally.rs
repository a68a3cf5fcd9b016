//! What a group counts of the jobs in it and in all groups in it.
//!
//! A [`Tally`] is additive: it is the same in whatever order the jobs' changes come, as long as those of one job keep their own, and a
//! change that is taken back leaves no trace. So several may add up their parts, and what is not added up yet may be added for
//! the looking.
//!
//! Only jobs that are over say what became of their tasks and what they took: what a live one does, its head tells.

use std::collections::BTreeMap;

use super::path::GroupPath;
use super::recount::Correction;
use crate::ids::Millis;
use crate::spec::Resources;

/// What attempts took: how long each ran, times what it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Time alone.
    pub run_ms: u64,
    /// Times cores: a millisecond of one.
    pub cpu_ms: u64,
    /// Times memory, in MiB that were begun.
    pub memory_mib_ms: u64,
    /// Times pieces of named resources; without those of which nothing was taken.
    pub named_ms: BTreeMap<String, u64>,
}

/// Tasks, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskTally {
    /// Not over: the job ended before them.
    pub pending: u64,
    /// Their result was accepted.
    pub successful: u64,
    /// Their budget was used up.
    pub failed: u64,
    /// Ended by a user, or not begun because their stage stopped.
    pub cancelled: u64,
}

/// The jobs of a group and of all groups in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// All that ever got into it.
    pub submitted: u64,
    /// Of them, over and successful.
    pub successful: u64,
    /// Over and failed.
    pub failed: u64,
    /// Over and cancelled.
    pub cancelled: u64,
    /// Tasks of those that are over.
    pub tasks: TaskTally,
    /// What those took.
    pub spent: Spent,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// Every stage was successful or skipped on purpose.
    Successful,
    /// A stage failed.
    Failed,
    /// A user ended it before its own end.
    Cancelled,
}

/// What one transaction of a job means for the groups that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// Of an end: the job's tasks. Of a return: the same again. A submit has none to tell of, and they are not looked at.
    pub tasks: TaskTally,
    /// Of an end: what the job took. Of a return: the same again. A submit has none to tell of, and it is not looked at.
    pub spent: Spent,
}

/// What happened to a job, or was found out about a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was accepted.
    Submitted,
    /// It came to its end.
    Ended(JobEnd),
    /// It had ended so, and is active again: its end is taken back.
    Returned(JobEnd),
    /// A recount found that this very group counts so much too little, or too much. Those around it are none of its business.
    Corrected(Correction),
}

/// Puts a number to another one, or takes it away.
type Way = fn(u64, u64) -> u64;

impl Spent {
    /// What attempts took that ran for so long altogether, each with these resources.
    #[must_use]
    pub fn of(run_ms: u64, resources: &Resources) -> Self {
        let times = |amount: u64| cut(u128::from(run_ms) * u128::from(amount));
        let named = resources.named.iter().map(|(name, count)| (name.clone(), times(u64::from(*count))));
        Self {
            run_ms,
            cpu_ms: cut(u128::from(run_ms) * u128::from(resources.cpu_milli) / 1000),
            memory_mib_ms: times(resources.memory_bytes.div_ceil(1 << 20)),
            named_ms: named.filter(|(_, ms)| *ms > 0).collect(),
        }
    }

    /// Adds what others took. Saturates.
    pub fn add(&mut self, more: &Self) {
        self.join(more, u64::saturating_add);
    }

    fn join(&mut self, other: &Self, way: Way) {
        self.run_ms = way(self.run_ms, other.run_ms);
        self.cpu_ms = way(self.cpu_ms, other.cpu_ms);
        self.memory_mib_ms = way(self.memory_mib_ms, other.memory_mib_ms);
        for (name, ms) in &other.named_ms {
            let sum = self.named_ms.entry(name.clone()).or_default();
            *sum = way(*sum, *ms);
        }
        self.named_ms.retain(|_, ms| *ms > 0);
    }
}

/// What is more than there is room for counts as much as there is.
fn cut(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl Change {
    /// The groups of which it tells something, if the one that it names is `path`: that one and those around it.
    pub fn concerns<'a>(&self, path: &'a GroupPath) -> impl Iterator<Item = &'a str> {
        let only_itself = matches!(self.kind, ChangeKind::Corrected(_));
        path.outwards().take(if only_itself { 1 } else { usize::MAX })
    }
}

impl TaskTally {
    fn join(&mut self, other: &Self, way: Way) {
        self.pending = way(self.pending, other.pending);
        self.successful = way(self.successful, other.successful);
        self.failed = way(self.failed, other.failed);
        self.cancelled = way(self.cancelled, other.cancelled);
    }
}

impl Tally {
    /// Takes a change in. Numbers saturate; a return takes back exactly what the end before it added.
    pub fn add(&mut self, change: &Change) {
        match &change.kind {
            ChangeKind::Submitted => self.submitted = self.submitted.saturating_add(1),
            ChangeKind::Ended(end) => self.count(*end, change, u64::saturating_add),
            ChangeKind::Returned(end) => self.count(*end, change, u64::saturating_sub),
            ChangeKind::Corrected(correction) => self.correct(correction),
        }
    }

    fn count(&mut self, end: JobEnd, change: &Change, way: Way) {
        let jobs = match end {
            JobEnd::Successful => &mut self.successful,
            JobEnd::Failed => &mut self.failed,
            JobEnd::Cancelled => &mut self.cancelled,
        };
        *jobs = way(*jobs, 1);
        self.tasks.join(&change.tasks, way);
        self.spent.join(&change.spent, way);
    }

    /// Jobs that are not over.
    #[must_use]
    pub fn live(&self) -> u64 {
        let over = self.successful.saturating_add(self.failed).saturating_add(self.cancelled);
        self.submitted.saturating_sub(over)
    }

    /// Whether every job is over; also where there never was one.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.live() == 0
    }
}

/// What one observer has added up of a group, change by change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// What there is.
    pub tally: Tally,
    /// When the last of its jobs ended; 0: some are not over, or it never had one.
    pub completed_at: Millis,
    /// How often it became complete.
    pub completions: u64,
}

impl Sums {
    /// Takes a change in, as of `at`. True: with this the group has become complete. False for all others, also where it was
    /// complete before; so whoever adds each change once hears of each completion once.
    pub fn add(&mut self, change: &Change, at: Millis) -> bool {
        let was_complete = self.tally.is_complete();
        self.tally.add(change);
        let is_complete = self.tally.is_complete();
        if !is_complete {
            self.completed_at = 0;
        } else if !was_complete {
            self.completed_at = at;
            self.completions = self.completions.saturating_add(1);
        }
        is_complete && !was_complete
    }
}

/// What people see of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    /// Some of its jobs are not over, and so far all is well.
    Running,
    /// It is complete, and nothing failed or was cancelled.
    Successful,
    /// A job failed, whether or not others still run.
    Failed,
    /// None failed, and one was cancelled, or the group was.
    Cancelled,
}

/// What a group shows. `is_cancelled`: it is, or one around it.
#[must_use]
pub fn shown(tally: &Tally, is_cancelled: bool) -> GroupState {
    if tally.failed > 0 {
        GroupState::Failed
    } else if tally.cancelled > 0 || is_cancelled {
        GroupState::Cancelled
    } else if tally.is_complete() {
        GroupState::Successful
    } else {
        GroupState::Running
    }
}

/// Whether a group is to cancel itself that does so after so many failures; 0: never.
#[must_use]
pub fn has_failed_enough(tally: &Tally, after_failures: u64) -> bool {
    after_failures > 0 && tally.failed >= after_failures
}
