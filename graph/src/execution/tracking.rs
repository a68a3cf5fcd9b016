//! The only code that changes a task or a stage.
//!
//! Everything that follows from tasks and stages is brought up to date here and nowhere else: counts (promise C6), what is
//! ready, what executors hold, and of which needs, how upstreams stand, what the next delta must carry. Each change costs what it touches.
//!
//! Invariants, checked after every event by the property tests: counts equal a recount; a task is in `ready` if and only
//! if it is pending, its backoff is over and [`ExecutionGraph::is_allowed`]; `Upstreams` equal a recount.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::bits::BitSet;
use super::graph::{Step, Upstreams, is_whole};
use super::packed::{Packed, TaskPhase};
use super::{ExecutionGraph, JobEvent, JobState, StageReason, StageRecord, StageState, TaskState};
use crate::ids::{StageIndex, TaskId};
use crate::plan::Edge;
use crate::spec::When;

/// What the next delta must carry.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    pub(super) job: bool,
    /// Executors from this number on are new.
    pub(super) executors_from: usize,
    /// Executors that were marked lost, or not lost any more.
    pub(super) lost: BTreeSet<u32>,
    /// Stages whose own record changed.
    pub(super) stages: BitSet,
    /// Stages with changed tasks.
    pub(super) tasks: BitSet,
}

impl Changes {
    pub(super) fn new(stages: u32) -> Self {
        Self {
            job: false,
            executors_from: 0,
            lost: BTreeSet::new(),
            stages: BitSet::new(stages),
            tasks: BitSet::new(stages),
        }
    }
}

/// How a stage looks from below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not resolved.
    Waiting,
    /// Resolved or running.
    Begun,
    Successful,
    /// Failed, cancelled, or skipped because of such a one.
    Bad,
    /// Skipped because nothing failed.
    NothingFailed,
}

impl Standing {
    pub(super) fn of(record: &StageRecord) -> Self {
        match (record.state, record.reason) {
            (StageState::Unresolved, _) => Self::Waiting,
            (StageState::Resolved | StageState::Running, _) => Self::Begun,
            (StageState::Successful, _) => Self::Successful,
            (StageState::Skipped, StageReason::NothingFailed) => Self::NothingFailed,
            (StageState::Failed | StageState::Cancelled | StageState::Skipped, _) => Self::Bad,
        }
    }

    pub(super) fn is_over(self) -> bool {
        !matches!(self, Self::Waiting | Self::Begun)
    }
}

impl Upstreams {
    /// Counts an upstream that stands like this, or takes it out again.
    pub(super) fn count(&mut self, edge: Edge, standing: Standing, by: i32) {
        let add = |number: &mut u32, holds: bool| {
            if holds {
                *number = number.saturating_add_signed(by);
            }
        };
        add(&mut self.whole_successful, is_whole(edge) && standing == Standing::Successful);
        add(&mut self.each_begun, !is_whole(edge) && matches!(standing, Standing::Begun | Standing::Successful));
        add(&mut self.over, standing.is_over());
        add(&mut self.bad, standing == Standing::Bad);
        add(&mut self.nothing_failed, standing == Standing::NothingFailed);
    }
}

impl ExecutionGraph {
    /// Gives a task a new value.
    pub(super) fn set_task(&mut self, stage: u32, index: u32, new: Packed) {
        let value = &mut self.stages[stage as usize];
        let old = std::mem::replace(&mut value.tasks[index as usize], new);
        if old == new {
            return;
        }
        value.changed.insert(index);
        self.changes.tasks.insert(stage);
        let (was, is) = (old.phase(), new.phase());
        if was != is {
            for counts in [&mut value.counts, &mut self.counts] {
                *counts.of(was) -= 1;
                *counts.of(is) += 1;
            }
            if value.counts.live() == 0 {
                self.look_at(stage);
            }
        }
        match (old.is_live(), new.is_live()) {
            (false, true) => self.held.one_more(stage),
            (true, false) => self.held.one_less(stage),
            _ => {}
        }
        self.count_on_executor(&old, -1);
        self.count_on_executor(&new, 1);
        if is == TaskPhase::Pending && new.time() > self.clock {
            self.backoffs.push(Reverse((new.time(), TaskId::new(stage, index))));
        }
        self.refresh_ready(stage, index);
        if old.is_successful() != new.is_successful() {
            for edge in 0..self.topology.edges_below(stage) {
                let (below, kind) = self.topology.edge_below(stage, edge);
                if !is_whole(kind) {
                    self.refresh_ready(below, index);
                }
            }
        }
    }

    /// Gives a task another state.
    pub(super) fn set_task_state(&mut self, stage: u32, index: u32, state: TaskState) {
        let new = self.stages[stage as usize].tasks[index as usize].with(state);
        self.set_task(stage, index, new);
    }

    /// Accounts for what a task means to its executor.
    pub(super) fn count_on_executor(&mut self, task: &Packed, by: i32) {
        let Some(executor) = task.on().and_then(|on| self.executors.get_mut(on.0 as usize)) else { return };
        if task.is_live() {
            executor.held = executor.held.saturating_add_signed(by);
        } else if task.has_output() {
            executor.outputs = executor.outputs.saturating_add_signed(by);
            if executor.lost {
                self.stranded = self.stranded.saturating_add_signed(by);
            }
        }
    }

    /// Whether its stage and its upstreams let a task be assigned.
    pub(super) fn is_allowed(&self, stage: u32, index: u32) -> bool {
        if !self.stages[stage as usize].gate_open {
            return false;
        }
        let plan = self.stage_plan(stage);
        plan.when != When::OnSuccess
            || self.stages[stage as usize].each_total == 0
            || plan.upstreams.iter().filter(|upstream| !is_whole(upstream.edge)).all(|upstream| {
                let task = TaskId { stage: upstream.stage, index: crate::ids::TaskIndex(index) };
                self.packed(task).is_some_and(Packed::is_successful)
            })
    }

    /// Puts a task among the ready ones, or takes it out.
    pub(super) fn refresh_ready(&mut self, stage: u32, index: u32) {
        let Some(task) = self.stages[stage as usize].tasks.get(index as usize) else { return };
        let is_ready = task.phase() == TaskPhase::Pending && task.time() <= self.clock && self.is_allowed(stage, index);
        let ready = &mut self.stages[stage as usize].ready;
        if is_ready {
            ready.insert(index);
        } else {
            ready.remove(index);
        }
        self.refresh_ready_stage(stage);
    }

    fn refresh_ready_stage(&mut self, stage: u32) {
        if self.stages[stage as usize].ready.is_empty() {
            self.ready_stages.remove(stage);
        } else {
            self.ready_stages.insert(stage);
        }
    }

    /// Opens or closes a stage's gate as its upstreams stand now.
    pub(super) fn refresh_gate(&mut self, stage: u32) {
        let open = self.gate_should_be_open(stage);
        let value = &mut self.stages[stage as usize];
        if value.gate_open == open {
            return;
        }
        value.gate_open = open;
        if open && value.counts.pending > 0 {
            for index in 0..value.tasks.len() as u32 {
                self.refresh_ready(stage, index);
            }
        } else {
            value.ready.clear();
            self.refresh_ready_stage(stage);
        }
    }

    pub(super) fn gate_should_be_open(&self, stage: u32) -> bool {
        let (value, plan) = (&self.stages[stage as usize], self.stage_plan(stage));
        matches!(value.record.state, StageState::Resolved | StageState::Running)
            && match plan.when {
                When::OnSuccess => {
                    (value.upstreams.whole_successful + value.each_total) as usize == plan.upstreams.len()
                }
                When::OnFailure | When::Always => value.upstreams.over as usize == plan.upstreams.len(),
            }
    }

    /// Gives a stage a new record, tells the stages below, and the log if it moved.
    pub(super) fn set_stage(&mut self, stage: u32, new: StageRecord, step: &mut Step<'_>) {
        let value = &mut self.stages[stage as usize];
        let old = std::mem::replace(&mut value.record, new);
        if old == new {
            return;
        }
        self.changes.stages.insert(stage);
        let (was, is) = (Standing::of(&old), Standing::of(&new));
        if was.is_over() != is.is_over() {
            self.stages_over = self.stages_over.saturating_add_signed(if is.is_over() { 1 } else { -1 });
        }
        if old.state != new.state {
            step.emit(JobEvent::StageMoved { stage: StageIndex(stage), state: new.state });
            self.refresh_gate(stage);
        }
        if was != is {
            for edge in 0..self.topology.edges_below(stage) {
                let (below, kind) = self.topology.edge_below(stage, edge);
                let lower = &mut self.stages[below as usize];
                lower.upstreams.count(kind, was, -1);
                lower.upstreams.count(kind, is, 1);
                lower.doom_unseen |= is == Standing::Bad;
                self.look_at(below);
            }
        }
    }

    /// Moves a stage to a state that is over.
    pub(super) fn end_stage(&mut self, stage: u32, state: StageState, reason: StageReason, step: &mut Step<'_>) {
        let record = StageRecord { state, reason, finished_at: step.at, ..self.stages[stage as usize].record };
        self.set_stage(stage, record, step);
    }

    /// Puts a stage on the list of those to be looked at before the event is done with.
    pub(super) fn look_at(&mut self, stage: u32) {
        let value = &mut self.stages[stage as usize];
        if !value.queued {
            value.queued = true;
            self.work.push_back(stage);
        }
    }

    /// Cancels the pending tasks of a stage, and says how many.
    pub(super) fn cancel_pending(&mut self, stage: u32) -> u32 {
        let pending = self.stages[stage as usize].counts.pending;
        if pending > 0 {
            for index in 0..self.stages[stage as usize].tasks.len() as u32 {
                if self.stages[stage as usize].tasks[index as usize].phase() == TaskPhase::Pending {
                    self.set_task_state(stage, index, TaskState::Cancelled);
                }
            }
        }
        pending
    }

    /// Moves the job.
    pub(super) fn set_job_state(&mut self, state: JobState, step: &mut Step<'_>) {
        if self.record.state != state {
            self.record.state = state;
            self.changes.job = true;
            step.emit(JobEvent::JobMoved { state });
        }
    }
}
