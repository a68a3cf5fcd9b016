//! Outputs: which are needed, which are given up, and what follows when one is made again.

use super::graph::{Step, is_whole};
use super::packed::{Packed, TaskPhase};
use super::topology::reads;
use super::{Accepted, Effect, ExecutionGraph, JobEvent, Output, StageRecord, StageState, TaskState, Why};
use crate::ids::{Attempt, ExecutorKey, StageIndex, TaskId};

impl ExecutionGraph {
    pub(super) fn output_lost(&mut self, task: TaskId, attempt: Attempt, step: &mut Step<'_>) {
        if let Err(why) = self.lose_output(task, attempt, step) {
            step.ignore(why);
        }
    }

    /// Gives one output up, if it is the accepted one, needed, and may be made again.
    pub(super) fn lose_output(&mut self, task: TaskId, attempt: Attempt, step: &mut Step<'_>) -> Result<(), Why> {
        let packed = self.packed(task).ok_or(Why::Unknown)?;
        if self.is_over() {
            return Err(Why::Over);
        }
        if !packed.is_successful() || packed.attempt != attempt {
            return Err(Why::Superseded);
        }
        let (stage, index) = (task.stage.0, task.index.0);
        if !packed.has_output() || !self.is_needed(stage, index) {
            return Err(Why::NotConcerned);
        }
        if !self.may_run(stage, index) {
            return Err(Why::Over);
        }
        step.emit(JobEvent::OutputsLost { stage: task.stage, tasks: 1 });
        self.give_up(stage, index);
        self.reopen(stage, step);
        // What its producer reads may have been lost while nothing needed it.
        self.need_revived = true;
        Ok(())
    }

    /// The outputs that lie on an executor, in any of its incarnations, and that somebody may still read. Costs as much as
    /// the job has tasks, if it has outputs there at all.
    pub fn needed_outputs_of(&self, executor_id: &str) -> impl Iterator<Item = (TaskId, Attempt, Output)> + '_ {
        let mut lives = self.lives(executor_id, u64::MAX);
        lives.retain(|life| self.executors[life.0 as usize].outputs > 0);
        let stages = if lives.is_empty() { &[] } else { self.stages.as_slice() };
        let stages = (0u32..).zip(stages).filter(|(_, value)| value.counts.successful > 0);
        let tasks = stages.flat_map(|(stage, value)| (0u32..).zip(&value.tasks).map(move |task| (stage, task)));
        tasks.filter_map(move |(stage, (index, task))| {
            let lies_there = task.has_output() && task.on().is_some_and(|on| lives.contains(&on));
            if !lies_there || !self.is_needed(stage, index) {
                return None;
            }
            let TaskState::Successful(accepted) = task.state() else { return None };
            Some((TaskId::new(stage, index), task.attempt, accepted.output))
        })
    }

    /// An output lies elsewhere now, and nothing else changes: whoever is about to read it looks in vain where it lay,
    /// and then asks again.
    pub(super) fn output_moved(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        from: &str,
        to: ExecutorKey,
        step: &mut Step<'_>,
    ) {
        let Some(packed) = self.packed(task).copied() else { return step.ignore(Why::Unknown) };
        let TaskState::Successful(accepted) = packed.state() else { return step.ignore(Why::Superseded) };
        if self.is_over() {
            return step.ignore(Why::Over);
        }
        if !packed.has_output() {
            return step.ignore(Why::NotConcerned);
        }
        if packed.attempt != attempt || self.executor(accepted.on).is_none_or(|on| on.id != from) || to.id == from {
            return step.ignore(Why::Superseded);
        }
        let on = self.heard_from(to);
        self.set_task_state(task.stage.0, task.index.0, TaskState::Successful(Accepted { on, ..accepted }));
    }

    fn give_up(&mut self, stage: u32, index: u32) {
        let packed = self.stages[stage as usize].tasks[index as usize];
        self.set_task(stage, index, packed.without_result(TaskState::Pending { not_before: 0 }));
    }

    /// Makes again what is needed and lies on lost executors: consumers before producers, so that a producer is asked
    /// for again if its consumer was.
    pub(super) fn remake_lost(&mut self, step: &mut Step<'_>) {
        for place in (0..self.topology.order().len()).rev() {
            if self.stranded == 0 {
                return;
            }
            let stage = self.topology.order()[place];
            if self.stages[stage as usize].counts.successful == 0 {
                continue;
            }
            let mut tasks = 0;
            for index in 0..self.stages[stage as usize].tasks.len() as u32 {
                let packed = &self.stages[stage as usize].tasks[index as usize];
                let on_lost = |packed: &Packed| packed.on().is_some_and(|on| self.executors[on.0 as usize].lost);
                if packed.has_output() && on_lost(packed) && self.is_needed(stage, index) && self.may_run(stage, index)
                {
                    self.give_up(stage, index);
                    tasks += 1;
                }
            }
            if tasks > 0 {
                step.emit(JobEvent::OutputsLost { stage: StageIndex(stage), tasks });
                self.reopen(stage, step);
            }
        }
    }

    /// Whether somebody may still read an output. What no stage reads is the job's result.
    pub(super) fn is_needed(&self, stage: u32, index: u32) -> bool {
        let mut is_read = false;
        for &(below, edge) in self.topology.below(stage).iter().filter(|(_, edge)| reads(*edge)) {
            let reader = &self.stages[below as usize];
            is_read = true;
            let needs = if is_whole(edge) {
                !reader.record.state.is_over()
            } else {
                reader.tasks.get(index as usize).is_some_and(|task| task.phase() < TaskPhase::Successful)
            };
            if needs {
                return true;
            }
        }
        !is_read && !self.is_over()
    }

    /// Whether a stage reads outputs of another.
    pub(super) fn reads_from(&self, reader: u32, producer: StageIndex) -> bool {
        self.stage_plan(reader).upstreams.iter().any(|upstream| upstream.stage == producer && reads(upstream.edge))
    }

    /// An output was made again: it lies elsewhere now, and if it differs, whoever read the earlier one runs again.
    pub(super) fn output_made_again(&mut self, task: TaskId, differs: bool, step: &mut Step<'_>) {
        for edge in 0..self.topology.edges_below(task.stage.0) {
            let (below, kind) = self.topology.edge_below(task.stage.0, edge);
            let state = self.stages[below as usize].record.state;
            if !reads(kind) || state == StageState::Skipped {
                continue;
            }
            let mut tasks = 0;
            if differs && is_whole(kind) {
                let counts = self.stages[below as usize].counts;
                if counts.held() + counts.successful > 0 {
                    for index in 0..self.stages[below as usize].tasks.len() as u32 {
                        tasks += u32::from(self.run_again(below, index, step));
                    }
                }
            } else if differs {
                tasks += u32::from(self.run_again(below, task.index.0, step));
            }
            if tasks > 0 {
                step.emit(JobEvent::InputsChanged { stage: StageIndex(below), tasks });
                self.reopen(below, step);
            }
            let record = self.stages[below as usize].record;
            if !record.state.is_over() {
                let inputs_revision = record.inputs_revision.saturating_add(1);
                self.set_stage(below, StageRecord { inputs_revision, ..record }, step);
            }
        }
    }

    /// Takes a task back that read an output which is not valid any more. False if there was nothing to take back. In a
    /// stage that starts nothing any more it ends as cancelled, so that a retry runs it.
    fn run_again(&mut self, stage: u32, index: u32, step: &mut Step<'_>) -> bool {
        let Some(packed) = self.stages[stage as usize].tasks.get(index as usize).copied() else { return false };
        let new = match packed.phase() {
            TaskPhase::Successful => {
                let state = self.resting_state(stage, index, 0, step);
                // It reads all of its inputs again, of which some may have been lost meanwhile.
                self.need_revived = true;
                packed.without_result(state)
            }
            TaskPhase::Assigned | TaskPhase::Running => {
                let on = packed.on().expect("assigned and running tasks are on an executor");
                let task = TaskId::new(stage, index);
                step.effects.push(Effect::CancelAttempt { task, attempt: packed.attempt, on });
                let state = self.resting_state(stage, index, 0, step);
                packed.with(state)
            }
            TaskPhase::Pending | TaskPhase::Failed | TaskPhase::Cancelled => return false,
        };
        self.set_task(stage, index, new);
        true
    }
}
