//! What came out: which rule was broken by which job in which revisions, and figures.

use std::collections::BTreeSet;
use std::fmt;

use muster_graph::ids::{JobId, TaskId};
use muster_state::Revision;

use super::excerpt;
use super::history::Write;

/// A rule that a history can break. The promise that it belongs to is in its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What is stored can be read, and is where it belongs.
    Readable,
    /// C1: what was acknowledged is in the store.
    Acknowledged,
    /// C1: a key means one job, for ever.
    OneJobPerKey,
    /// C1: a job is there until it is over, and after that where finished jobs are.
    JobKept,
    /// C2: one accepted result for each generation of a task's output, and it stays.
    AcceptedOnce,
    /// C2: what is accepted was assigned to that executor, by an earlier revision.
    AcceptedAssigned,
    /// C2: what is accepted was started, there.
    AcceptedStarted,
    /// C2: an accepted output that lies elsewhere than it was made was taken over, there.
    MovedKept,
    /// C2: attempts only rise, and one attempt is on one executor.
    AttemptsRise,
    /// C3: owners change only by a claim that is allowed.
    OwnerClaimed,
    /// C3: who writes for a job is its owner.
    Token,
    /// C3: commits come one after the other, each once; nothing is overwritten.
    Sequence,
    /// C3: the epoch changes only by a recovery.
    Epoch,
    /// C3: what was started was assigned, to that executor in that life.
    StartAssigned,
    /// C3: an attempt is started once.
    StartedOnce,
    /// C3: an executor that heard of an owner admits nothing of an earlier one.
    Fence,
    /// C3: after a cancel nothing is assigned but what always runs.
    Cancelled,
    /// C3: nor after the cancel of a group around the job.
    GroupCancelled,
    /// C4: a dead scheduler's jobs move on in time.
    Takeover,
    /// C5: what runs is not given up while its executor is there.
    RunningKept,
    /// C5: executors are declared lost only when they were away for long enough.
    LossDeclared,
    /// C6: counts are those of the states.
    Counts,
    /// C6: those of groups are those of their jobs, and each completion is seen once.
    GroupCounts,
    /// C6: folding loses nothing, and what is stored can be restored.
    Folding,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Readable,
        Self::Acknowledged,
        Self::OneJobPerKey,
        Self::JobKept,
        Self::AcceptedOnce,
        Self::AcceptedAssigned,
        Self::AcceptedStarted,
        Self::MovedKept,
        Self::AttemptsRise,
        Self::OwnerClaimed,
        Self::Token,
        Self::Sequence,
        Self::Epoch,
        Self::StartAssigned,
        Self::StartedOnce,
        Self::Fence,
        Self::Cancelled,
        Self::GroupCancelled,
        Self::Takeover,
        Self::RunningKept,
        Self::LossDeclared,
        Self::Counts,
        Self::GroupCounts,
        Self::Folding,
    ];

    /// The promise and the rule, in a line.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Readable => "what is stored can be read",
            Self::Acknowledged => "C1: what was acknowledged is in the store",
            Self::OneJobPerKey => "C1: an idempotency key means one job",
            Self::JobKept => "C1: a job does not vanish",
            Self::AcceptedOnce => "C2: one accepted result for each generation of an output",
            Self::AcceptedAssigned => "C2: an accepted attempt was assigned before, to that executor",
            Self::AcceptedStarted => "C2: an accepted attempt was started, on that executor",
            Self::MovedKept => "C2: an accepted output that moved was taken over by that executor",
            Self::AttemptsRise => "C2: attempts only rise",
            Self::OwnerClaimed => "C3: an owner is followed only when its session is gone, or by its own will",
            Self::Token => "C3: only the owner writes for a job",
            Self::Sequence => "C3: commits follow each other, each once",
            Self::Epoch => "C3: the epoch stays",
            Self::StartAssigned => "C3: what is started was assigned",
            Self::StartedOnce => "C3: an attempt is started once",
            Self::Fence => "C3: an executor admits nothing of an owner that it knows to be superseded",
            Self::Cancelled => "C3: after a cancel only `always` stages are assigned",
            Self::GroupCancelled => "C3: after a group's cancel only `always` stages of its jobs are assigned",
            Self::Takeover => "C4: jobs of a dead scheduler move on in time",
            Self::RunningKept => "C5: running work is not given up while its executor is there",
            Self::LossDeclared => "C5: an executor is declared lost only after it was away for long enough",
            Self::Counts => "C6: counts are true",
            Self::GroupCounts => "C6: counts of groups are true, and each completion is seen once",
            Self::Folding => "C6: folding loses nothing",
        }
    }
}

/// A rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// By which job, if by one.
    pub job: Option<JobId>,
    /// By which task, if by one.
    pub task: Option<TaskId>,
    /// The revisions that show it.
    pub revisions: Vec<Revision>,
    /// What is wrong.
    pub what: String,
}

/// The move of a job from a session that ended to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// The job.
    pub job: JobId,
    /// The session that ended.
    pub from: String,
    /// The one that owned the job next.
    pub to: String,
    /// When the session's key went, or was last renewed by an election, or when somebody was there to take over: from then
    /// on the job waits.
    pub waits_from_us: u64,
    /// When the owner's record was written.
    pub owned_at_us: u64,
    /// When the new owner's first commit for the job was written, if there was one.
    pub wrote_at_us: Option<u64>,
}

impl Takeover {
    /// How long the job was without an owner, in microseconds.
    #[must_use]
    pub fn waited_us(&self) -> u64 {
        self.owned_at_us.saturating_sub(self.waits_from_us)
    }
}

/// A task's wait from the commit that made it ready until its first start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The task's job.
    pub job: JobId,
    /// The commit, in microseconds of the boot-time clock, as all times here.
    pub ready_us: u64,
    /// The start, as its executor noted it.
    pub started_us: u64,
}

/// Figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Revisions that were judged.
    pub revisions: usize,
    /// Jobs that were seen.
    pub jobs: usize,
    /// Of these, over at the end.
    pub jobs_over: usize,
    /// Accepted results.
    pub accepted: usize,
    /// Starts in the executors' records.
    pub starts: usize,
    /// Tasks with more than one start in the executors' records.
    pub run_more_than_once: usize,
    /// Accepted twice within one generation.
    pub accepted_twice: usize,
    /// Acknowledged submits that are not over at the end.
    pub unfinished: usize,
    /// Jobs that moved from a session that had ended.
    pub takeovers: Vec<Takeover>,
    /// Of each task that was started, in the order in which they became ready.
    pub waits: Vec<Wait>,
}

impl Statistics {
    /// The middle and the longest wait of jobs for a new owner, in microseconds; none if no job waited.
    #[must_use]
    pub fn takeover_us(&self) -> Option<(u64, u64)> {
        let mut waits: Vec<u64> = self.takeovers.iter().map(Takeover::waited_us).collect();
        waits.sort_unstable();
        Some((*waits.get(waits.len() / 2)?, *waits.last()?))
    }
}

/// What the evidence says.
#[derive(Debug)]
pub struct Verdict {
    /// Every rule that was broken, in the order of the history as far as it has one.
    pub violations: Vec<Violation>,
    /// Figures.
    pub statistics: Statistics,
    /// The revisions around the first violations; those that were shown are not shown again.
    excerpts: Vec<String>,
}

/// Violations that are shown with the history around them; the first ones tell most. Four times as many are listed.
const SHOWN: usize = 5;

impl Verdict {
    pub(super) fn new(violations: Vec<Violation>, statistics: Statistics, writes: &[Write]) -> Self {
        let mut shown = BTreeSet::new();
        let excerpts = violations
            .iter()
            .take(4 * SHOWN)
            .map(|violation| {
                let is_new = shown.len() < SHOWN && shown.insert((violation.job, violation.revisions.clone()));
                if is_new { excerpt::around(violation, writes) } else { String::new() }
            })
            .collect();
        Self { violations, statistics, excerpts }
    }

    /// The rules that were broken.
    #[must_use]
    pub fn rules(&self) -> BTreeSet<Rule> {
        self.violations.iter().map(|violation| violation.rule).collect()
    }

    /// # Panics
    /// When a rule was broken; the message shows how.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{self}");
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.rule.describe())?;
        if let Some(job) = self.job {
            write!(f, "job {job}")?;
        }
        if let Some(task) = self.task {
            write!(f, " task {}/{}", task.stage.0, task.index.0)?;
        }
        write!(f, " (revisions {:?}): {}", self.revisions, self.what)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} violations; {:?}", self.violations.len(), self.rules())?;
        for (place, violation) in self.violations.iter().enumerate().take(4 * SHOWN) {
            writeln!(f, "{violation}")?;
            if let Some(excerpt) = self.excerpts.get(place).filter(|excerpt| !excerpt.is_empty()) {
                writeln!(f, "{excerpt}")?;
            }
        }
        let left = self.violations.len().saturating_sub(4 * SHOWN);
        if left > 0 {
            writeln!(f, "and {left} more")?;
        }
        // One by one, the waits of twenty thousand tasks would hide the rest.
        let figures = Statistics { waits: Vec::new(), ..self.statistics.clone() };
        write!(f, "{figures:?}")
    }
}
