//! Deltas out, and a graph back from them.
//!
//! A delta carries the values of what changed; a snapshot is all parts of a graph, extracted. Restoring lays deltas over an
//! untouched graph in the order given, checks that the outcome can be a state of this plan, and computes the rest.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::graph::Executor;
use super::packed::{Packed, TaskPhase};
use super::tracking::Standing;
use super::{Counts, Delta, ExecutionGraph, ExecutorRef, Part, StageState, TaskRun};
use crate::ids::{ExecutorKey, JobId, StageIndex, TaskId};
use crate::plan::Plan;

/// Stored states that do not fit the plan, or each other. The data is damaged or belongs to another job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The plan has fewer stages.
    #[error("stored states name stage {stage}, but the plan has {stages} stages")]
    UnknownStage {
        /// As stored.
        stage: u32,
        /// In the plan.
        stages: u32,
    },
    /// The stage has fewer tasks.
    #[error("stored states name {count} tasks from {first} on in stage {stage}, but it has {tasks}")]
    UnknownTasks {
        /// The stage.
        stage: u32,
        /// First one, as stored.
        first: u32,
        /// How many, as stored.
        count: u32,
        /// In the plan.
        tasks: u32,
    },
    /// A task is on an executor that no delta names.
    #[error("stored states name executor {executor}, which nothing introduces")]
    UnknownExecutor {
        /// Its number in the job.
        executor: u32,
    },
    /// Two executors with one number, or one with two.
    #[error("stored states name executor {executor} in two ways")]
    AmbiguousExecutor {
        /// Its number in the job.
        executor: u32,
    },
    /// A task is in a state that its stage does not allow, or without an attempt.
    #[error("task {} of stage {} is {phase:?}, which does not fit its stage or its attempt", task.index.0, task.stage.0)]
    ImpossibleTask {
        /// Which task.
        task: TaskId,
        /// Where it is, as stored.
        phase: TaskPhase,
    },
    /// The job is over and some stage is not, or it is not and all stages are.
    #[error("the stored job is {job:?}, which does not fit its stages")]
    ImpossibleJob {
        /// Where it is, as stored.
        job: super::JobState,
    },
}

impl ExecutionGraph {
    /// A graph in the state that these deltas describe: those taken since the start, or extracted parts followed by the
    /// deltas taken after them. Later ones win.
    ///
    /// # Errors
    ///
    /// If a delta does not fit the plan, or the outcome is a state that no events lead to.
    pub fn restore(plan: Arc<Plan>, job: JobId, deltas: impl IntoIterator<Item = Delta>) -> Result<Self, RestoreError> {
        let mut graph = Self::new(plan, job);
        let mut names = Names::default();
        for delta in deltas {
            graph.lay_over(delta, &mut names)?;
        }
        graph.executors = names.into_executors()?;
        let refs = (0u32..).zip(&graph.executors);
        graph.executor_refs = refs.map(|(index, executor)| (executor.key.clone(), ExecutorRef(index))).collect();
        if graph.executor_refs.len() < graph.executors.len() {
            return Err(RestoreError::AmbiguousExecutor { executor: graph.executor_refs.len() as u32 });
        }
        graph.changes.executors_from = graph.executors.len();
        graph.count_again()?;
        graph.derive_again();
        Ok(graph)
    }

    fn lay_over(&mut self, delta: Delta, names: &mut Names) -> Result<(), RestoreError> {
        let stages = self.stages.len() as u32;
        if let Some(record) = delta.job {
            self.record = record;
            self.submitted = true;
        }
        for (executor, key) in delta.executors {
            names.name(executor, key)?;
        }
        names.lost.extend(delta.lost.into_iter().map(|(executor, lost)| (executor.0, lost)));
        for (stage, record) in delta.stages {
            let value = self.stages.get_mut(stage.0 as usize);
            value.ok_or(RestoreError::UnknownStage { stage: stage.0, stages })?.record = record;
        }
        for run in delta.tasks {
            let tasks = self.tasks_mut(run.stage, run.first, run.count)?;
            tasks.fill(Packed::new(run.task, None));
        }
        for (task, checksum) in delta.given_up {
            let tasks = self.tasks_mut(task.stage, task.index.0, 1)?;
            tasks[0] = Packed::new(tasks[0].task(), Some(checksum));
        }
        Ok(())
    }

    fn tasks_mut(&mut self, stage: StageIndex, first: u32, count: u32) -> Result<&mut [Packed], RestoreError> {
        let stages = self.stages.len() as u32;
        let value = self.stages.get_mut(stage.0 as usize);
        let tasks = &mut value.ok_or(RestoreError::UnknownStage { stage: stage.0, stages })?.tasks;
        let total = tasks.len() as u32;
        let end = first.checked_add(count).filter(|end| *end <= total);
        let end = end.ok_or(RestoreError::UnknownTasks { stage: stage.0, first, count, tasks: total })?;
        Ok(&mut tasks[first as usize..end as usize])
    }

    /// Counts, and checks that they can be.
    fn count_again(&mut self) -> Result<(), RestoreError> {
        self.counts = Counts::default();
        for stage in 0..self.stages.len() {
            let mut counts = Counts::default();
            for index in 0..self.stages[stage].tasks.len() {
                let packed = self.stages[stage].tasks[index];
                let task = TaskId::new(stage as u32, index as u32);
                if !fits(self.stages[stage].record.state, &packed) {
                    return Err(RestoreError::ImpossibleTask { task, phase: packed.phase() });
                }
                if let Some(on) = packed.on().filter(|on| on.0 as usize >= self.executors.len()) {
                    return Err(RestoreError::UnknownExecutor { executor: on.0 });
                }
                self.count_on_executor(&packed, 1);
                if packed.is_live() {
                    self.held.one_more(stage as u32);
                }
                *counts.of(packed.phase()) += 1;
                *self.counts.of(packed.phase()) += 1;
                if packed.phase() == TaskPhase::Pending && packed.time() > 0 {
                    self.backoffs.push(Reverse((packed.time(), task)));
                }
            }
            self.stages[stage].counts = counts;
            self.stages_over += u32::from(self.stages[stage].record.state.is_over());
        }
        let all_over = self.submitted && self.stages_over as usize == self.stages.len();
        if self.record.state.is_over() != all_over {
            return Err(RestoreError::ImpossibleJob { job: self.record.state });
        }
        Ok(())
    }

    /// How upstreams stand, whose gate is open, and what is ready.
    fn derive_again(&mut self) {
        for stage in 0..self.stages.len() as u32 {
            let standing = Standing::of(&self.stages[stage as usize].record);
            for edge in 0..self.topology.edges_below(stage) {
                let (below, kind) = self.topology.edge_below(stage, edge);
                self.stages[below as usize].upstreams.count(kind, standing, 1);
            }
        }
        for stage in 0..self.stages.len() as u32 {
            self.refresh_gate(stage);
        }
    }

    /// Everything that changed since it was last taken: to be committed before the effects are carried out.
    #[must_use]
    pub fn take_delta(&mut self) -> Delta {
        let mut delta = Delta::default();
        if std::mem::take(&mut self.changes.job) {
            delta.job = Some(self.record.clone());
        }
        let new = self.executors.iter().enumerate().skip(self.changes.executors_from);
        delta.executors = new.map(|(index, executor)| (ExecutorRef(index as u32), executor.key.clone())).collect();
        self.changes.executors_from = self.executors.len();
        let lost = std::mem::take(&mut self.changes.lost);
        delta.lost = lost.into_iter().map(|index| (ExecutorRef(index), self.executors[index as usize].lost)).collect();
        let stages = self.changes.stages.iter();
        delta.stages = stages.map(|stage| (StageIndex(stage), self.stages[stage as usize].record)).collect();
        self.changes.stages.clear();
        for stage in self.changes.tasks.iter() {
            let value = &mut self.stages[stage as usize];
            let mut writer = RunWriter::new(stage, &mut delta);
            for index in value.changed.iter() {
                writer.add(index, value.tasks[index as usize]);
            }
            writer.finish();
            value.changed.clear();
        }
        self.changes.tasks.clear();
        delta
    }

    /// The present values of one part, whether they changed or not. What the plan does not have is left out.
    #[must_use]
    pub fn extract(&self, part: Part) -> Delta {
        let mut delta = Delta::default();
        match part {
            Part::Job => delta.job = Some(self.record.clone()),
            Part::Executors { first, count } => {
                for (index, executor) in (0u32..).zip(&self.executors).skip(first as usize).take(count as usize) {
                    delta.executors.push((ExecutorRef(index), executor.key.clone()));
                    if executor.lost {
                        delta.lost.push((ExecutorRef(index), true));
                    }
                }
            }
            Part::Stages { first, count } => {
                let stages = (0u32..).zip(&self.stages).skip(first as usize).take(count as usize);
                delta.stages = stages.map(|(index, stage)| (StageIndex(index), stage.record)).collect();
            }
            Part::Tasks { stage, first, count } => {
                let tasks: &[Packed] = self.stages.get(stage.0 as usize).map_or(&[], |value| &value.tasks);
                let mut writer = RunWriter::new(stage.0, &mut delta);
                for (index, task) in (0u32..).zip(tasks).skip(first as usize).take(count as usize) {
                    writer.add(index, *task);
                }
                writer.finish();
            }
        }
        delta
    }

    /// The whole state as one delta.
    #[must_use]
    pub fn snapshot(&self) -> Delta {
        let mut delta = Delta::default();
        if self.submitted {
            delta.job = Some(self.record.clone());
        }
        let parts = [Part::Executors { first: 0, count: u32::MAX }, Part::Stages { first: 0, count: u32::MAX }];
        let [executors, stages] = parts.map(|part| self.extract(part));
        (delta.executors, delta.lost, delta.stages) = (executors.executors, executors.lost, stages.stages);
        for stage in 0..self.stages.len() as u32 {
            let tasks = self.extract(Part::Tasks { stage: StageIndex(stage), first: 0, count: u32::MAX });
            delta.tasks.extend(tasks.tasks);
            delta.given_up.extend(tasks.given_up);
        }
        delta
    }
}

/// Whether a task can be in its state while its stage is in that one. A stage that is over has no task that is not; only a
/// running one has tasks on executors.
fn fits(stage: StageState, task: &Packed) -> bool {
    let stage_fits = match task.phase() {
        TaskPhase::Pending => !stage.is_over(),
        TaskPhase::Assigned | TaskPhase::Running => stage == StageState::Running,
        TaskPhase::Failed | TaskPhase::Cancelled => stage != StageState::Successful,
        TaskPhase::Successful => true,
    };
    stage_fits && (task.on().is_none() || task.attempt > 0)
}

/// The executors that deltas name.
#[derive(Default)]
struct Names {
    keys: BTreeMap<u32, ExecutorKey>,
    lost: BTreeMap<u32, bool>,
}

impl Names {
    fn name(&mut self, executor: ExecutorRef, key: ExecutorKey) -> Result<(), RestoreError> {
        match self.keys.insert(executor.0, key.clone()) {
            Some(other) if other != key => Err(RestoreError::AmbiguousExecutor { executor: executor.0 }),
            _ => Ok(()),
        }
    }

    fn into_executors(self) -> Result<Vec<Executor>, RestoreError> {
        let mut executors = Vec::with_capacity(self.keys.len());
        for ((number, key), expected) in self.keys.into_iter().zip(0..) {
            if number != expected {
                return Err(RestoreError::UnknownExecutor { executor: expected });
            }
            executors.push(Executor { key, held: 0, outputs: 0, lost: false });
        }
        for (number, lost) in self.lost {
            let executor = executors.get_mut(number as usize);
            executor.ok_or(RestoreError::UnknownExecutor { executor: number })?.lost = lost;
        }
        Ok(executors)
    }
}

/// Puts equal neighbours together.
struct RunWriter<'a> {
    stage: StageIndex,
    delta: &'a mut Delta,
    /// First index, length and value of the run so far.
    run: Option<(u32, u32, Packed)>,
}

impl<'a> RunWriter<'a> {
    fn new(stage: u32, delta: &'a mut Delta) -> Self {
        Self { stage: StageIndex(stage), delta, run: None }
    }

    fn add(&mut self, index: u32, task: Packed) {
        match &mut self.run {
            Some((first, count, value)) if *value == task && *first + *count == index => *count += 1,
            _ => {
                self.write();
                self.run = Some((index, 1, task));
            }
        }
    }

    fn write(&mut self) {
        if let Some((first, count, value)) = self.run.take() {
            self.delta.tasks.push(TaskRun { stage: self.stage, first, count, task: value.task() });
            if let Some(checksum) = value.given_up() {
                let tasks = (first..first + count).map(|index| (TaskId::new(self.stage.0, index), checksum));
                self.delta.given_up.extend(tasks);
            }
        }
    }

    fn finish(mut self) {
        self.write();
    }
}
