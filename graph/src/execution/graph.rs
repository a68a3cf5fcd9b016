//! The graph's state, and the questions that it answers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::bits::BitSet;
use super::held::HeldByNeed;
use super::packed::Packed;
use super::topology::Topology;
use super::tracking::Changes;
use super::{
    Counts, Effect, Event, ExecutorRef, JobEvent, JobRecord, JobState, StageReason, StageRecord, StageState, Task, Why,
};
use crate::ids::{Attempt, ExecutorKey, JobId, Millis, StageIndex, TaskId, TaskIndex};
use crate::plan::{Edge, Plan, StagePlan};

/// The state of one job. See the [module's page](super) for the rules.
#[derive(Debug, Clone)]
pub struct ExecutionGraph {
    pub(super) plan: Arc<Plan>,
    pub(super) job_id: JobId,
    pub(super) topology: Topology,
    /// Something has happened: a first stage may be resolved.
    pub(super) submitted: bool,
    pub(super) record: JobRecord,
    pub(super) stages: Vec<Stage>,
    pub(super) counts: Counts,
    pub(super) stages_over: u32,
    pub(super) executors: Vec<Executor>,
    pub(super) executor_refs: BTreeMap<ExecutorKey, ExecutorRef>,
    /// Accepted outputs on lost executors that nothing needed so far.
    pub(super) stranded: u32,
    /// Stages with ready tasks.
    pub(super) ready_stages: BitSet,
    pub(super) held: HeldByNeed,
    /// Ends of backoffs; an entry that its task does not bear out any more is dropped when it comes up.
    pub(super) backoffs: BinaryHeap<Reverse<(Millis, TaskId)>>,
    /// The latest time heard of.
    pub(super) clock: Millis,
    /// Stages to look at again; empty between two events.
    pub(super) work: VecDeque<u32>,
    /// A stage wants inputs again that nothing needed before; false between two events.
    pub(super) need_revived: bool,
    /// New attempts get numbers above this one.
    pub(super) numbers_above: Attempt,
    pub(super) changes: Changes,
}

/// A stage and what follows from its tasks and upstreams.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) record: StageRecord,
    pub(super) tasks: Box<[Packed]>,
    pub(super) counts: Counts,
    /// Tasks that may be assigned now.
    pub(super) ready: BitSet,
    /// Tasks that changed since the last delta.
    pub(super) changed: BitSet,
    pub(super) upstreams: Upstreams,
    /// The upstreams as a whole allow tasks to be assigned.
    pub(super) gate_open: bool,
    /// Of the upstreams, how many are waited for task by task (if the condition is `on_success`).
    pub(super) each_total: u32,
    /// An upstream ended without success, and pending tasks were not yet looked through for it; false between events.
    pub(super) doom_unseen: bool,
    /// Is in `work`.
    pub(super) queued: bool,
    /// Neither a cancel nor the job's time-out touches it: it runs always, or is in a nested job that does.
    pub(super) outlives_cancel: bool,
}

/// How many of a stage's upstreams stand how; kept up to date from above.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Upstreams {
    /// Of those waited for as a whole: successful.
    pub(super) whole_successful: u32,
    /// Of those waited for task by task: resolved, running or successful.
    pub(super) each_begun: u32,
    /// Over in any way.
    pub(super) over: u32,
    /// Over and not successful.
    pub(super) bad: u32,
    /// Skipped because nothing failed.
    pub(super) nothing_failed: u32,
}

/// One life of an executor, as far as the job is concerned.
#[derive(Debug, Clone)]
pub(super) struct Executor {
    pub(super) key: ExecutorKey,
    /// Attempts assigned to it or running there.
    pub(super) held: u32,
    /// Accepted outputs with files there.
    pub(super) outputs: u32,
    /// It was declared lost.
    pub(super) lost: bool,
}

/// A stage that placement may assign tasks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ready {
    /// Which stage.
    pub stage: StageIndex,
    /// How many of its tasks are ready.
    pub count: u32,
}

/// When an event happened, and where its effects go.
pub(super) struct Step<'a> {
    pub(super) at: Millis,
    pub(super) effects: &'a mut Vec<Effect>,
}

impl Step<'_> {
    pub(super) fn ignore(&mut self, why: Why) {
        self.effects.push(Effect::Ignored { why });
    }

    pub(super) fn emit(&mut self, event: JobEvent) {
        self.effects.push(Effect::Emit(event));
    }
}

impl ExecutionGraph {
    /// A job to which nothing has happened yet; [`Event::Submitted`] comes next. The plan must be a valid one: without
    /// cycles, with equal numbers of tasks at both ends of an `each` edge. A plan that is not, makes stages that never
    /// resolve, not a panic.
    #[must_use]
    pub fn new(plan: Arc<Plan>, job: JobId) -> Self {
        let mut counts = Counts::default();
        let outlives = super::nested::outliving(&plan);
        let stages: Vec<Stage> =
            plan.stages.iter().zip(outlives).map(|(stage, outlives)| Stage::new(stage, outlives)).collect();
        for stage in &stages {
            counts.pending = counts.pending.saturating_add(stage.counts.pending);
        }
        let total = u32::try_from(stages.len()).unwrap_or(u32::MAX);
        Self {
            topology: Topology::new(&plan),
            held: HeldByNeed::new(&plan),
            plan,
            job_id: job,
            submitted: false,
            record: JobRecord {
                state: JobState::Queued,
                cancel: None,
                timed_out: false,
                started_at: 0,
                finished_at: 0,
                failures: Vec::new(),
            },
            stages,
            counts,
            stages_over: 0,
            executors: Vec::new(),
            executor_refs: BTreeMap::new(),
            stranded: 0,
            ready_stages: BitSet::new(total),
            backoffs: BinaryHeap::new(),
            clock: 0,
            work: VecDeque::new(),
            need_revived: false,
            numbers_above: 0,
            changes: Changes::new(total),
        }
    }

    /// Takes in what happened at `at`, and adds what has to be done, once the [delta](Self::take_delta) is committed, to
    /// `effects`. Total and deterministic.
    pub fn apply(&mut self, event: Event, at: Millis, effects: &mut Vec<Effect>) {
        self.clock = self.clock.max(at);
        self.release_due();
        let step = &mut Step { at, effects };
        match event {
            Event::Submitted => self.submitted(step),
            Event::Assigned { stage, on, count } => self.assigned(stage, on, count, step),
            Event::LaunchRefused { task, attempt, by, message } => self.refused(task, attempt, &by, message, step),
            Event::AttemptStarted { task, attempt, by, started_at } => {
                self.started(task, attempt, by, started_at, step)
            }
            Event::AttemptFinished { task, attempt, by, end } => self.finished(task, attempt, by, end, step),
            Event::ExecutorAnswered { by, held, scope } => self.executor_answered(by, &held, scope, step),
            Event::ExecutorLost { executor } => self.executor_lost(&executor, step),
            Event::WentDown { task, attempt, with, verdict, message } => {
                self.went_down(task, attempt, &with, verdict, message, step);
            }
            Event::OutputLost { task, attempt } => self.output_lost(task, attempt, step),
            Event::OutputMoved { task, attempt, from, to } => self.output_moved(task, attempt, &from, to, step),
            Event::CancelRequested { reason } => self.cancel_requested(reason, step),
            Event::RetryRequested => self.retry_requested(step),
            Event::TimerFired => self.timer_fired(step),
        }
        self.settle(step);
        self.drop_stale_backoffs();
    }

    /// From now on the numbers of new attempts are above `attempt`. For a job that was restored from a backup: numbers
    /// that were given after the backup was made are in use out there, and nothing here knows of them. Not part of the
    /// job's state: to be said anew after each restore.
    pub fn number_attempts_above(&mut self, attempt: Attempt) {
        self.numbers_above = attempt;
    }

    /// The plan that it walks.
    #[must_use]
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The job's id.
    #[must_use]
    pub fn job_id(&self) -> JobId {
        self.job_id
    }

    /// The job's own record.
    #[must_use]
    pub fn job(&self) -> &JobRecord {
        &self.record
    }

    /// Whether the job came to its end; only a retry moves it from there.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.record.state.is_over()
    }

    /// How many tasks of the job are in each state.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// A stage's own record.
    #[must_use]
    pub fn stage(&self, stage: StageIndex) -> Option<&StageRecord> {
        Some(&self.stages.get(stage.0 as usize)?.record)
    }

    /// All stages' own records, in the order of the plan.
    pub fn stages(&self) -> impl ExactSizeIterator<Item = (StageIndex, &StageRecord)> {
        self.stages.iter().enumerate().map(|(index, stage)| (StageIndex(index as u32), &stage.record))
    }

    /// How many tasks of a stage are in each state; all zero for a stage that does not exist.
    #[must_use]
    pub fn stage_counts(&self, stage: StageIndex) -> Counts {
        self.stages.get(stage.0 as usize).map(|stage| stage.counts).unwrap_or_default()
    }

    /// A task.
    #[must_use]
    pub fn task(&self, task: TaskId) -> Option<Task> {
        Some(self.packed(task)?.task())
    }

    /// Tasks of a stage, lowest index first; indices that do not exist are left out.
    pub fn tasks(&self, stage: StageIndex, range: Range<u32>) -> impl Iterator<Item = (TaskIndex, Task)> + '_ {
        let tasks: &[Packed] = self.stages.get(stage.0 as usize).map_or(&[], |stage| &stage.tasks);
        let total = tasks.len();
        let (start, end) = ((range.start as usize).min(total), (range.end as usize).min(total));
        let first = range.start;
        (first..).zip(tasks[start..end.max(start)].iter()).map(|(index, task)| (TaskIndex(index), task.task()))
    }

    /// The stages with tasks that may be assigned now, by index. Costs no more than their number.
    pub fn ready(&self) -> impl Iterator<Item = Ready> + '_ {
        self.ready_stages
            .iter()
            .map(|stage| Ready { stage: StageIndex(stage), count: self.stages[stage as usize].ready.len() })
    }

    /// The tasks that executors have, assigned or running, by what they need: a stage with that need, and how many of all stages
    /// that have it. Costs as much as there are different needs.
    pub fn held_by_need(&self) -> impl Iterator<Item = (StageIndex, u32)> + '_ {
        self.held.iter()
    }

    /// When the next [`Event::TimerFired`] is due. After a restore it may be in the past.
    #[must_use]
    pub fn next_timer(&self) -> Option<Millis> {
        let backoff = self.backoffs.peek().map(|Reverse((at, _))| *at);
        backoff.into_iter().chain(self.deadline()).min()
    }

    /// The executor behind a reference of this graph.
    #[must_use]
    pub fn executor(&self, executor: ExecutorRef) -> Option<&ExecutorKey> {
        Some(&self.executors.get(executor.0 as usize)?.key)
    }

    /// The attempts that the graph believes an executor to have, in any of its incarnations.
    pub fn holds<'a>(&'a self, executor_id: &'a str) -> impl Iterator<Item = (TaskId, Attempt)> + 'a {
        let some = self.executors.iter().any(|executor| executor.key.id == executor_id && executor.held > 0);
        let stages = if some { self.stages.as_slice() } else { &[] };
        (0u32..).zip(stages).filter(|(_, stage)| stage.counts.held() > 0).flat_map(move |(stage, value)| {
            (0u32..).zip(&value.tasks).filter_map(move |(index, task)| {
                let on = task.is_live().then(|| task.on()).flatten()?;
                let id = &self.executors.get(on.0 as usize)?.key.id;
                (id == executor_id).then_some((TaskId::new(stage, index), task.attempt))
            })
        })
    }

    /// Whether an executor, in any incarnation, has attempts or outputs of the job.
    #[must_use]
    pub fn concerns(&self, executor_id: &str) -> bool {
        let uses = |executor: &&Executor| executor.held > 0 || executor.outputs > 0;
        self.executors.iter().filter(uses).any(|executor| executor.key.id == executor_id)
    }

    /// Whether an executor, in any incarnation, ever had something of the job, even if it was given up since.
    #[must_use]
    pub fn knows(&self, executor_id: &str) -> bool {
        !self.lives(executor_id, u64::MAX).is_empty()
    }

    /// Whether attempts of a stage are to end, since the job is: all but those of `always` stages and nested jobs.
    #[must_use]
    pub fn ends_attempts_of(&self, stage: StageIndex) -> bool {
        (stage.0 as usize) < self.stages.len() && self.is_cancelling(stage.0)
    }

    /// The executors, in any incarnation, that have attempts of the job: whom to ask at a takeover. Sorted, each once.
    #[must_use]
    pub fn holders(&self) -> Vec<&str> {
        let held = self.executors.iter().filter(|executor| executor.held > 0);
        let mut ids: Vec<&str> = held.map(|executor| executor.key.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub(super) fn packed(&self, task: TaskId) -> Option<&Packed> {
        self.stages.get(task.stage.0 as usize)?.tasks.get(task.index.0 as usize)
    }

    pub(super) fn stage_plan(&self, stage: u32) -> &StagePlan {
        &self.plan.stages[stage as usize]
    }

    /// Whether the job has been asked to end, by a user or by its time-out.
    pub(super) fn is_ending(&self) -> bool {
        self.record.cancel.is_some() || self.record.timed_out
    }

    /// Whether the stage has been asked to end with the job.
    pub(super) fn is_cancelling(&self, stage: u32) -> bool {
        self.is_ending() && !self.stages[stage as usize].outlives_cancel
    }

    /// Whether so many tasks failed that no further ones are started.
    pub(super) fn is_stopped(&self, stage: u32) -> bool {
        let failed = self.stages[stage as usize].counts.failed;
        self.stage_plan(stage).stop_after.is_some_and(|limit| failed >= limit.max(1))
    }
}

impl Stage {
    fn new(plan: &StagePlan, outlives_cancel: bool) -> Self {
        Self {
            record: StageRecord {
                state: StageState::Unresolved,
                reason: StageReason::None,
                started_at: 0,
                finished_at: 0,
                inputs_revision: 0,
            },
            tasks: vec![Packed::default(); plan.tasks as usize].into_boxed_slice(),
            counts: Counts { pending: plan.tasks, ..Counts::default() },
            ready: BitSet::new(plan.tasks),
            changed: BitSet::new(plan.tasks),
            upstreams: Upstreams::default(),
            gate_open: false,
            each_total: plan.upstreams.iter().filter(|upstream| !is_whole(upstream.edge)).count() as u32,
            doom_unseen: false,
            queued: false,
            outlives_cancel,
        }
    }
}

/// Whether a stage waits for the whole upstream stage along this edge, if its condition is `on_success`.
pub(super) fn is_whole(edge: Edge) -> bool {
    edge != Edge::Each
}
