//! What pending tasks wait for, as far as the job itself goes: for whoever explains why something does not run. Told from
//! what decides it ([`ExecutionGraph::is_allowed`], the stages' gates, the backoffs), never from rules of its own.

use std::cmp::Reverse;

use super::graph::is_whole;
use super::packed::TaskPhase;
use super::tracking::Standing;
use super::{ExecutionGraph, FailureClass, StageState};
use crate::ids::{Millis, StageIndex, TaskId};
use crate::spec::{Gate, When};

impl ExecutionGraph {
    /// Whether a task's upstreams allow it to run: if it is pending and not backing off, it is ready.
    #[must_use]
    pub fn inputs_ready(&self, task: TaskId) -> bool {
        self.packed(task).is_some() && self.is_allowed(task.stage.0, task.index.0)
    }

    /// Whether the upstreams as a whole let tasks of a stage be assigned; task by task there may be more to wait for.
    #[must_use]
    pub fn is_open(&self, stage: StageIndex) -> bool {
        self.stages.get(stage.0 as usize).is_some_and(|value| value.gate_open)
    }

    /// How many tasks of a stage may be assigned now.
    #[must_use]
    pub fn ready_count(&self, stage: StageIndex) -> u32 {
        self.stages.get(stage.0 as usize).map_or(0, |value| value.ready.len())
    }

    /// The lowest task of a stage that may be assigned now.
    #[must_use]
    pub fn first_ready(&self, stage: StageIndex) -> Option<u32> {
        self.stages.get(stage.0 as usize)?.ready.first()
    }

    /// How many tasks of its stage are assigned before a task that may be assigned now. `None`: it may not be assigned now.
    #[must_use]
    pub fn ready_before(&self, task: TaskId) -> Option<u32> {
        let ready = &self.stages.get(task.stage.0 as usize)?.ready;
        ready.contains(task.index.0).then(|| ready.below(task.index.0))
    }

    /// Whether tasks of a stage wait for single tasks of other stages.
    #[must_use]
    pub fn waits_task_by_task(&self, stage: StageIndex) -> bool {
        let Some(value) = self.stages.get(stage.0 as usize) else { return false };
        value.each_total > 0 && self.stage_plan(stage.0).when == When::OnSuccess
    }

    /// The stages for which a stage waits as a whole, in the order of the spec.
    pub fn awaited_stages(&self, stage: StageIndex) -> impl Iterator<Item = StageIndex> + '_ {
        let plan = self.plan.stages.get(stage.0 as usize);
        let is_resolved = self.stage(stage).is_some_and(|record| record.state != StageState::Unresolved);
        plan.into_iter().flat_map(move |plan| {
            plan.upstreams.iter().filter_map(move |upstream| {
                let standing = Standing::of(self.stage(upstream.stage)?);
                let came = match plan.when {
                    _ if plan.gate == Some(Gate::End) => standing.is_over(),
                    When::OnSuccess if is_whole(upstream.edge) => standing == Standing::Successful,
                    // Once it is resolved, its tasks wait for theirs one by one.
                    When::OnSuccess => is_resolved || matches!(standing, Standing::Begun | Standing::Successful),
                    When::OnFailure | When::Always => standing.is_over(),
                };
                (!came).then_some(upstream.stage)
            })
        })
    }

    /// The single tasks of other stages for which a task waits, in the order of the spec.
    pub fn awaited_tasks(&self, task: TaskId) -> impl Iterator<Item = TaskId> + '_ {
        let plan = self.plan.stages.get(task.stage.0 as usize).filter(|plan| plan.when == When::OnSuccess);
        plan.into_iter().flat_map(move |plan| {
            let each = plan.upstreams.iter().filter(|upstream| !is_whole(upstream.edge));
            let above = each.map(move |upstream| TaskId { stage: upstream.stage, index: task.index });
            above.filter(|above| self.packed(*above).is_some_and(|above| !above.is_successful()))
        })
    }

    /// How many ends of backoffs are noted: what [`Self::backing_off`] costs.
    #[must_use]
    pub fn backoffs_noted(&self) -> usize {
        self.backoffs.len()
    }

    /// The tasks that back off, each with the end of that, in no order.
    pub fn backing_off(&self) -> impl Iterator<Item = (TaskId, Millis)> + '_ {
        self.backoffs.iter().filter_map(|Reverse((until, task))| {
            let packed = self.packed(*task)?;
            // As one does that is dropped when it comes up.
            let holds = packed.phase() == TaskPhase::Pending && packed.time() == *until && *until > self.clock;
            holds.then_some((*task, *until))
        })
    }

    /// How many failed attempts of a class a task of a stage may have before it fails itself. 255 is without end.
    #[must_use]
    pub fn retry_budget(&self, stage: StageIndex, class: FailureClass) -> u8 {
        let plan = self.plan.stages.get(stage.0 as usize);
        plan.map_or(0, |plan| super::attempts::budget(&plan.retries, class))
    }
}
