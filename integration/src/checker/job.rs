//! One job as its writes leave it, revision by revision: what is stored of it, and the states that follow from that.
//!
//! Deltas are laid over the running state one after the other, so that a job costs as much as it wrote, whatever its size.
//! Nothing here is the scheduler's code or the graph's: counts and states are made again from the records alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_graph::execution::{Counts, Delta, ExecutionGraph, JobRecord, StageRecord, Task, TaskPhase, TaskRun};
use muster_graph::ids::{ExecutorKey, JobId, TaskId};
use muster_graph::plan::Plan;
use muster_proto::storage::{JobHead, OwnerRecord};
use muster_state::codec::Commit;
use muster_state::keys::StatePart;
use muster_state::{Keyspace, Revision};

/// Neighbours that are stored together. Parts are named by their place, so these are part of the stored form.
pub(super) const EXECUTORS_IN_PART: u32 = 256;
/// See [`EXECUTORS_IN_PART`].
pub(super) const STAGES_IN_PART: u32 = 256;
/// See [`EXECUTORS_IN_PART`].
pub(super) const TASKS_IN_PART: u32 = 512;

/// Who may advance a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Owner {
    /// The revision of the record.
    pub(super) token: Revision,
    /// What it says.
    pub(super) record: OwnerRecord,
}

/// A task that has another value now.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) task: TaskId,
    pub(super) from: Task,
    pub(super) to: Task,
    /// The executors of both states, where they have one.
    pub(super) from_on: Option<ExecutorKey>,
    pub(super) to_on: Option<ExecutorKey>,
}

/// The states of a planned job.
#[derive(Debug, Clone)]
pub(super) struct States {
    pub(super) plan: Arc<Plan>,
    pub(super) record: JobRecord,
    pub(super) stages: Vec<StageRecord>,
    pub(super) tasks: Vec<Vec<Task>>,
    /// Checksums of outputs that were given up.
    pub(super) given_up: BTreeMap<TaskId, u64>,
    /// By their number in the job, and whether their outputs are regarded as lost.
    pub(super) executors: BTreeMap<u32, (ExecutorKey, bool)>,
    /// Counted here.
    pub(super) counts: Counts,
}

impl States {
    /// Of a job to which nothing has happened.
    pub(super) fn untouched(plan: Arc<Plan>, job: JobId) -> Self {
        let graph = ExecutionGraph::new(Arc::clone(&plan), job);
        let stages = graph.stages().map(|(_, record)| *record).collect();
        let tasks: Vec<Vec<Task>> =
            graph.stages().map(|(stage, _)| graph.tasks(stage, 0..u32::MAX).map(|(_, task)| task).collect()).collect();
        let pending = u32::try_from(tasks.iter().map(Vec::len).sum::<usize>()).unwrap_or(u32::MAX);
        Self {
            plan,
            record: graph.job().clone(),
            stages,
            tasks,
            given_up: BTreeMap::new(),
            executors: BTreeMap::new(),
            counts: Counts { pending, ..Counts::default() },
        }
    }

    /// The executor of a state, if it has one.
    pub(super) fn on(&self, task: &Task) -> Option<ExecutorKey> {
        use muster_graph::execution::TaskState as S;
        let on = match task.state {
            S::Assigned { on, .. } | S::Running { on, .. } => on,
            S::Successful(accepted) => accepted.on,
            S::Failed(ended) => ended.on,
            S::Pending { .. } | S::Cancelled => return None,
        };
        self.executors.get(&on.0).map(|(key, _)| key.clone())
    }

    /// What follows is the whole of the states, as a head has it: it names only what is so, and not what is so no more.
    pub(super) fn forget_what_a_whole_leaves_out(&mut self) {
        self.executors.values_mut().for_each(|(_, lost)| *lost = false);
        self.given_up.clear();
    }

    /// Lays a delta over the states, and says which tasks moved. An error: it does not fit the plan.
    pub(super) fn lay_over(&mut self, delta: &Delta, moves: &mut Vec<Move>) -> Result<(), String> {
        if let Some(record) = &delta.job {
            self.record = record.clone();
        }
        for (executor, key) in &delta.executors {
            let known = self.executors.entry(executor.0).or_insert_with(|| (key.clone(), false));
            if known.0 != *key {
                return Err(format!("executor {} is {key:?} and {:?}", executor.0, known.0));
            }
        }
        for (executor, lost) in &delta.lost {
            let known = self.executors.get_mut(&executor.0);
            known.ok_or_else(|| format!("executor {} is not introduced", executor.0))?.1 = *lost;
        }
        for (stage, record) in &delta.stages {
            let known = self.stages.get_mut(stage.0 as usize);
            *known.ok_or_else(|| format!("the plan has no stage {}", stage.0))? = *record;
        }
        for run in &delta.tasks {
            self.lay_run(run, moves)?;
        }
        for (task, checksum) in &delta.given_up {
            self.given_up.insert(*task, *checksum);
        }
        Ok(())
    }

    fn lay_run(&mut self, run: &TaskRun, moves: &mut Vec<Move>) -> Result<(), String> {
        let to_on = self.on(&run.task);
        for index in run.first..run.first.saturating_add(run.count) {
            let id = TaskId::new(run.stage.0, index);
            let known = self.tasks.get(run.stage.0 as usize).and_then(|tasks| tasks.get(index as usize)).copied();
            let from = known.ok_or_else(|| format!("the plan has no task {index} in stage {}", run.stage.0))?;
            self.given_up.remove(&id);
            if from == run.task {
                continue;
            }
            let from_on = self.on(&from);
            self.tasks[run.stage.0 as usize][index as usize] = run.task;
            *phase_count(&mut self.counts, from.state.phase()) -= 1;
            *phase_count(&mut self.counts, run.task.state.phase()) += 1;
            moves.push(Move { task: id, from, to: run.task, from_on, to_on: to_on.clone() });
        }
        Ok(())
    }

    /// Whether these are the states of a graph. An error names the first difference.
    pub(super) fn compare(&self, graph: &ExecutionGraph) -> Result<(), String> {
        let mut other = Self::untouched(Arc::clone(&self.plan), graph.job_id());
        other.lay_over(&graph.snapshot(), &mut Vec::new())?;
        let differs = |what: &str, a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug| {
            Err(format!("{what}: by all deltas {a:?}, by what is stored {b:?}"))
        };
        if self.record != other.record {
            return differs("the job's record", &self.record, &other.record);
        }
        if self.executors != other.executors {
            return differs("the executors", &self.executors, &other.executors);
        }
        for (stage, (mine, others)) in self.stages.iter().zip(&other.stages).enumerate() {
            if mine != others {
                return differs(&format!("stage {stage}"), mine, others);
            }
        }
        for (stage, (mine, others)) in self.tasks.iter().zip(&other.tasks).enumerate() {
            if let Some(index) = (0..mine.len()).find(|&index| mine[index] != others[index]) {
                return differs(&format!("task {stage}/{index}"), &mine[index], &others[index]);
            }
        }
        if self.given_up_now() != other.given_up_now() {
            return differs("given up", &self.given_up_now(), &other.given_up_now());
        }
        if self.counts != graph.counts() {
            return differs("counts", &self.counts, &graph.counts());
        }
        Ok(())
    }

    /// What is given up and not made again: a result that was accepted since makes it forgotten.
    fn given_up_now(&self) -> Vec<(TaskId, u64)> {
        let open = |task: &TaskId| {
            self.tasks[task.stage.0 as usize][task.index.0 as usize].state.phase() != TaskPhase::Successful
        };
        self.given_up.iter().filter(|(task, _)| open(task)).map(|(task, sum)| (*task, *sum)).collect()
    }

    /// Whether a bucket holds exactly what its part is now.
    pub(super) fn compare_part(&self, part: StatePart, bucket: &Delta) -> Result<(), String> {
        let mut found = self.clone_part(part);
        let mut expected = bucket.clone();
        expand(&mut found);
        expand(&mut expected);
        found.given_up.retain(|(task, _)| {
            self.tasks[task.stage.0 as usize][task.index.0 as usize].state.phase() != TaskPhase::Successful
        });
        if found == expected { Ok(()) } else { Err(format!("folded {expected:?}, by the deltas {found:?}")) }
    }

    /// One part's present values, each task by itself.
    fn clone_part(&self, part: StatePart) -> Delta {
        use muster_graph::execution::ExecutorRef;
        use muster_graph::ids::{StageIndex, TaskIndex};
        let mut delta = Delta::default();
        let range = |bucket: u32, size: u32| bucket * size..(bucket + 1).saturating_mul(size);
        match part {
            StatePart::Job => delta.job = Some(self.record.clone()),
            StatePart::Executors(bucket) => {
                for (number, (key, lost)) in self.executors.range(range(bucket, EXECUTORS_IN_PART)) {
                    delta.executors.push((ExecutorRef(*number), key.clone()));
                    if *lost {
                        delta.lost.push((ExecutorRef(*number), true));
                    }
                }
            }
            StatePart::Stages(bucket) => {
                let stages = (0u32..).zip(&self.stages).filter(|(i, _)| range(bucket, STAGES_IN_PART).contains(i));
                delta.stages = stages.map(|(index, record)| (StageIndex(index), *record)).collect();
            }
            StatePart::Tasks(stage, bucket) => {
                let indices = range(bucket, TASKS_IN_PART);
                let tasks = self.tasks.get(stage.0 as usize).map_or(&[][..], Vec::as_slice);
                let tasks = (indices.start..).zip(tasks.iter().skip(indices.start as usize).take(indices.len()));
                delta.tasks = tasks.map(|(first, task)| TaskRun { stage, first, count: 1, task: *task }).collect();
                let ids = |index| TaskId { stage, index: TaskIndex(index) };
                let given_up = self.given_up.range(ids(indices.start)..ids(indices.end));
                delta.given_up = given_up.map(|(task, sum)| (*task, *sum)).collect();
            }
        }
        delta
    }
}

/// Runs of tasks as one entry for each task.
fn expand(delta: &mut Delta) {
    let alone = |run: &TaskRun| {
        let run = run.clone();
        (run.first..run.first + run.count).map(move |first| TaskRun { first, count: 1, ..run.clone() })
    };
    delta.tasks = delta.tasks.iter().flat_map(alone).collect();
    delta.given_up.sort_unstable();
}

/// The number of one phase.
fn phase_count(counts: &mut Counts, phase: TaskPhase) -> &mut u32 {
    match phase {
        TaskPhase::Pending => &mut counts.pending,
        TaskPhase::Assigned => &mut counts.assigned,
        TaskPhase::Running => &mut counts.running,
        TaskPhase::Successful => &mut counts.successful,
        TaskPhase::Failed => &mut counts.failed,
        TaskPhase::Cancelled => &mut counts.cancelled,
    }
}

/// A job, as stored.
#[derive(Debug, Default)]
pub(super) struct Job {
    /// Where its head is; none: it has none.
    pub(super) place: Option<Keyspace>,
    pub(super) head: Option<JobHead>,
    pub(super) owner: Option<Owner>,
    /// Of the newest commit.
    pub(super) sequence: u64,
    pub(super) states: Option<States>,
    /// Deltas that are stored, with what they change.
    pub(super) deltas: BTreeMap<u64, Commit>,
    /// Buckets that are stored: up to where each is folded, and its content.
    pub(super) buckets: BTreeMap<StatePart, (u64, Delta)>,
    /// Something of it could not be followed: what would only repeat that is not judged any more.
    pub(super) torn: bool,
}

/// The parts that a delta changes.
pub(super) fn parts_of(delta: &Delta) -> Vec<StatePart> {
    use muster_graph::execution::{Part, PartSizes};
    let sizes = PartSizes { executors: EXECUTORS_IN_PART, stages: STAGES_IN_PART, tasks: TASKS_IN_PART };
    let name = |part| match part {
        Part::Job => StatePart::Job,
        Part::Executors { first, .. } => StatePart::Executors(first / EXECUTORS_IN_PART),
        Part::Stages { first, .. } => StatePart::Stages(first / STAGES_IN_PART),
        Part::Tasks { stage, first, .. } => StatePart::Tasks(stage, first / TASKS_IN_PART),
    };
    delta.parts_touched(sizes).into_iter().map(name).collect()
}
