//! What must hold after every event, whatever happened.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_graph::execution::{
    Counts, Delta, Effect, Event, ExecutionGraph, JobRecord, JobState, Outcome, StageRecord, StageState, Task,
    TaskPhase, TaskState,
};
use muster_graph::ids::{Attempt, Millis, StageIndex, TaskId};
use muster_graph::plan::{Edge, Plan};
use muster_graph::spec::When;

use crate::chance::is_held;
use crate::facts::Facts;
use crate::model::{Model, State};

/// Watches one job.
pub(crate) struct Witness {
    plan: Arc<Plan>,
    model: Model,
    facts: Facts,
    /// What the deltas so far amount to.
    mirror: Mirror,
    before: Vec<Vec<Task>>,
    stages_before: Vec<StageState>,
    /// Which attempt's result was accepted for each generation of a task's output.
    accepted: BTreeMap<(TaskId, u16), Attempt>,
}

#[derive(Default)]
struct Mirror {
    job: Option<JobRecord>,
    stages: BTreeMap<StageIndex, StageRecord>,
    tasks: BTreeMap<TaskId, Task>,
}

impl Mirror {
    fn lay_over(&mut self, delta: &Delta) {
        if let Some(job) = &delta.job {
            self.job = Some(job.clone());
        }
        self.stages.extend(delta.stages.iter().copied());
        for run in &delta.tasks {
            assert!(run.count > 0, "an empty run");
            for index in run.first..run.first + run.count {
                self.tasks.insert(TaskId::new(run.stage.0, index), run.task);
            }
        }
        for pair in delta.tasks.windows(2) {
            let adjacent = pair[0].stage == pair[1].stage && pair[0].first + pair[0].count == pair[1].first;
            let remembers = !delta.given_up.is_empty();
            assert!(!adjacent || pair[0].task != pair[1].task || remembers, "equal neighbours are one run");
        }
    }
}

fn recount(tasks: &[Task]) -> Counts {
    let count = |phase: TaskPhase| tasks.iter().filter(|task| task.state.phase() == phase).count() as u32;
    Counts {
        pending: count(TaskPhase::Pending),
        assigned: count(TaskPhase::Assigned),
        running: count(TaskPhase::Running),
        successful: count(TaskPhase::Successful),
        failed: count(TaskPhase::Failed),
        cancelled: count(TaskPhase::Cancelled),
    }
}

fn all_tasks(graph: &ExecutionGraph) -> Vec<Vec<Task>> {
    graph.stages().map(|(stage, _)| graph.tasks(stage, 0..u32::MAX).map(|(_, task)| task).collect()).collect()
}

/// Of each pending task of a stage that is not over it can be said why, and the reasons agree with what is ready.
fn pending_tasks_wait_for_something(graph: &ExecutionGraph, tasks: &[Vec<Task>], at: Millis) {
    let backing_off: BTreeMap<TaskId, Millis> = graph.backing_off().collect();
    for (stage, record) in graph.stages().filter(|(_, record)| !record.state.is_over()) {
        let mut ready = 0;
        for (index, task) in tasks[stage.0 as usize].iter().enumerate() {
            let id = TaskId::new(stage.0, index as u32);
            let TaskState::Pending { not_before } = task.state else { continue };
            if let Some(before) = graph.ready_before(id) {
                assert_eq!(before, ready, "{id:?}");
                assert!(graph.is_open(stage) && graph.inputs_ready(id) && !backing_off.contains_key(&id), "{id:?}");
                assert!(graph.first_ready(stage) <= Some(id.index.0));
                ready += 1;
                continue;
            }
            let unsubmitted =
                record.state == StageState::Unresolved && graph.plan().stages[stage.0 as usize].upstreams.is_empty();
            let waits = [
                unsubmitted || !graph.is_open(stage) && graph.awaited_stages(stage).next().is_some(),
                graph.is_open(stage) && graph.awaited_tasks(id).next().is_some(),
                backing_off.get(&id) == Some(&not_before) && not_before > at,
            ];
            assert!(waits.contains(&true), "{id:?} {task:?} of {record:?} waits for nothing that can be named");
            assert!(!waits[1] || graph.waits_task_by_task(stage), "{id:?}");
        }
        assert_eq!(graph.ready_count(stage), ready, "{stage:?}");
    }
}

impl Witness {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        Self {
            model: Model::new(plan.clone()),
            facts: Facts::default(),
            plan,
            mirror: Mirror::default(),
            before: Vec::new(),
            stages_before: Vec::new(),
            accepted: BTreeMap::new(),
        }
    }

    pub(crate) fn before(&mut self, graph: &ExecutionGraph) {
        self.before = all_tasks(graph);
        self.stages_before = graph.stages().map(|(_, record)| record.state).collect();
    }

    pub(crate) fn after(
        &mut self,
        graph: &ExecutionGraph,
        event: &Event,
        at: Millis,
        effects: &[Effect],
        delta: &Delta,
    ) {
        let tasks = all_tasks(graph);
        self.judge_changes(event, &tasks, effects, delta);
        self.agree_with_model(graph, event, at, &tasks, delta);
        self.count_again(graph, &tasks);
        pending_tasks_wait_for_something(graph, &tasks, at);
        self.judge_launches(effects);
        self.facts.hear(event, effects, &self.before);
        if graph.is_over() {
            self.facts.judge(graph);
        }
        self.mirror.lay_over(delta);
        self.judge_mirror(graph, &tasks, delta);
    }

    /// Counts equal a recount; what is over has an end and nothing left to do.
    fn count_again(&self, graph: &ExecutionGraph, tasks: &[Vec<Task>]) {
        let everything: Vec<Task> = tasks.iter().flatten().copied().collect();
        assert_eq!(graph.counts(), recount(&everything));
        for (stage, record) in graph.stages() {
            let counts = recount(&tasks[stage.0 as usize]);
            assert_eq!(graph.stage_counts(stage), counts, "{stage:?}");
            assert_eq!(record.finished_at > 0, record.state.is_over(), "{stage:?} {record:?}");
            assert!(!record.state.is_over() || counts.live() == 0, "{stage:?} is over with {counts:?}");
            let may_hold = record.state == StageState::Running;
            assert!(may_hold || counts.held() == 0, "{stage:?} {record:?} has {counts:?}");
        }
        let need = |stage: StageIndex| &graph.plan().stages[stage.0 as usize].resources;
        for (of, count) in graph.held_by_need() {
            let same = graph.stages().filter(|(stage, _)| need(*stage) == need(of));
            assert_eq!(
                count,
                same.map(|(stage, _)| graph.stage_counts(stage).held()).sum::<u32>(),
                "as much as {of:?}"
            );
        }
        assert_eq!(graph.held_by_need().map(|(_, count)| count).sum::<u32>(), graph.counts().held());
        let job = graph.job();
        assert_eq!(job.finished_at > 0, job.state.is_over(), "{job:?}");
        assert!(!job.state.is_over() || graph.stages().all(|(_, record)| record.state.is_over()));
        assert!(!job.state.is_over() || graph.next_timer().is_none(), "an ended job has a timer");
        let held = (0..3).flat_map(|one| graph.holds(["executor-0", "executor-1", "executor-2"][one])).count();
        assert_eq!(held as u32, graph.counts().held(), "what executors hold is what is assigned or running");
    }

    /// Attempts and generations only rise, by one; a generation has one accepted result; nothing ignored changes anything.
    fn judge_changes(&mut self, event: &Event, tasks: &[Vec<Task>], effects: &[Effect], delta: &Delta) {
        for (stage, (was, is)) in self.before.iter().zip(tasks).enumerate() {
            for (index, (was, is)) in was.iter().zip(is).enumerate() {
                let id = TaskId::new(stage as u32, index as u32);
                let launched = is.state.phase() == TaskPhase::Assigned && is.attempt != was.attempt;
                assert_eq!(is.attempt, was.attempt + u32::from(launched), "{id:?}: attempts rise by launches");
                assert!(is.generation == was.generation || is.generation == was.generation + 1, "{id:?}");
                let gave_up = was.state.phase() == TaskPhase::Successful && is.state.phase() != TaskPhase::Successful;
                assert_eq!(gave_up, is.generation > was.generation, "{id:?}: a result is given up with its generation");
                if let TaskState::Successful(_) = is.state {
                    let accepted = *self.accepted.entry((id, is.generation)).or_insert(is.attempt);
                    assert_eq!(accepted, is.attempt, "{id:?}: two results in a generation");
                }
                if was.state.phase() != TaskPhase::Successful && is.state.phase() == TaskPhase::Successful {
                    let succeeded = matches!(event, Event::AttemptFinished { task, attempt, end, .. }
                        if *task == id && *attempt == is.attempt && matches!(end.outcome, Outcome::Succeeded(_)));
                    assert!(succeeded && is_held(&was.state), "{id:?} became successful by {event:?} from {was:?}");
                }
            }
        }
        if !effects.is_empty() && effects.iter().all(|effect| matches!(effect, Effect::Ignored { .. })) {
            assert!(delta.is_empty(), "{effects:?} and yet {delta:?}");
        }
        // What neither changes anything nor has an effect was dropped without an answer.
        let silent = matches!(event, Event::TimerFired | Event::Submitted | Event::ExecutorLost { .. });
        let no_tasks = matches!(event, Event::Assigned { count: 0, .. });
        assert!(!effects.is_empty() || !delta.is_empty() || silent || no_tasks, "{event:?} was dropped");
    }

    /// What is launched was ready, and after a cancel it belongs to an `always` stage.
    fn judge_launches(&self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Launch { task, attempt, .. } = effect {
                let (stage, index) = (task.stage.0 as usize, task.index.0 as usize);
                let was = &self.before[stage][index];
                assert_eq!(was.state.phase(), TaskPhase::Pending, "{task:?} was launched from {was:?}");
                assert_eq!(*attempt, was.attempt + 1);
                let always = self.plan.stages[stage].when == When::Always;
                assert!(!self.model.ending || always, "{task:?} was launched after a cancel");
                let plan = &self.plan.stages[stage];
                for upstream in &plan.upstreams {
                    let above = upstream.stage.0 as usize;
                    let there = match (plan.when, upstream.edge) {
                        (When::OnSuccess, Edge::Each) => {
                            self.before[above][index].state.phase() == TaskPhase::Successful
                        }
                        (When::OnSuccess, _) => self.stages_before[above] == StageState::Successful,
                        (When::OnFailure | When::Always, _) => self.stages_before[above].is_over(),
                    };
                    assert!(there, "{task:?} was launched before stage {above} let it");
                }
            }
        }
    }

    /// The plain reference came to the same.
    fn agree_with_model(
        &mut self,
        graph: &ExecutionGraph,
        event: &Event,
        at: Millis,
        tasks: &[Vec<Task>],
        delta: &Delta,
    ) {
        if self.model.apply(event, at).is_err() {
            assert!(delta.is_empty() || matches!(event, Event::ExecutorAnswered { .. }), "{event:?} changed {delta:?}");
        }
        for (stage, record) in graph.stages() {
            let reference = &mut self.model.stages[stage.0 as usize];
            assert_eq!(record.state, reference.stand.public(), "{stage:?} {:?} after {event:?}", reference.tasks);
            for (index, (task, is)) in reference.tasks.iter_mut().zip(&tasks[stage.0 as usize]).enumerate() {
                let said = (is.attempt, is.spent, is.generation, is.state.phase());
                let expected = (task.attempt, task.spent, task.generation, task.phase());
                assert_eq!(said, expected, "task {index} of {stage:?} after {event:?}");
                let backoff = task.backoff.take();
                match (&mut task.state, is.state) {
                    (State::Pending { not_before: model }, TaskState::Pending { not_before }) => {
                        if let Some((earliest, latest)) = backoff {
                            assert!((earliest..=latest).contains(&not_before), "{not_before} in {earliest}..={latest}");
                            *model = not_before;
                        }
                        assert_eq!(not_before, *model, "task {index} of {stage:?} after {event:?}");
                    }
                    (State::Assigned(model), TaskState::Assigned { on, .. })
                    | (State::Running(model), TaskState::Running { on, .. }) => {
                        assert_eq!(graph.executor(on), Some(&*model));
                    }
                    (State::Successful { on: model, checksum, files }, TaskState::Successful(accepted)) => {
                        assert_eq!(graph.executor(accepted.on), Some(&*model));
                        assert_eq!((accepted.output.checksum, accepted.output.files), (*checksum, *files));
                    }
                    _ => {}
                }
            }
        }
        assert_eq!(graph.job().state, self.model.job, "after {event:?}");
        for stage in 0..self.plan.stages.len() {
            let ready = self.model.ready(stage);
            let said = graph.ready().find(|ready| ready.stage.0 as usize == stage).map_or(0, |ready| ready.count);
            assert_eq!(said as usize, ready.len(), "stage {stage} is ready with {ready:?} after {event:?}");
        }
    }

    /// The deltas so far give the present state.
    fn judge_mirror(&self, graph: &ExecutionGraph, tasks: &[Vec<Task>], delta: &Delta) {
        if let Some(job) = &self.mirror.job {
            assert_eq!(graph.job(), job);
        } else {
            assert_eq!(graph.job().state, JobState::Queued);
        }
        for (stage, record) in graph.stages() {
            if let Some(mirrored) = self.mirror.stages.get(&stage) {
                assert_eq!(record, mirrored);
            }
            for (index, task) in (0u32..).zip(&tasks[stage.0 as usize]) {
                let id = TaskId::new(stage.0, index);
                let mirrored = self.mirror.tasks.get(&id);
                let fresh =
                    Task { attempt: 0, spent: [0; 6], generation: 0, state: TaskState::Pending { not_before: 0 } };
                assert_eq!(mirrored.unwrap_or(&fresh), task, "{id:?} after {delta:?}");
            }
        }
    }
}
