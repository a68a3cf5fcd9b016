//! The judge of ends: from the list of what was accepted about each task, and nothing else, it decides which final states
//! the task may have.
//!
//! The list holds launches, failures as the job's log tells them, and results. It needs no rules of propagation: whatever
//! happened in between, an end must be explained by the facts.

use std::collections::BTreeMap;

use muster_graph::execution::{
    Effect, Event, ExecutionGraph, FailureClass, JobEvent, Outcome, StageState, Task, TaskPhase, TaskState, Verdict,
};
use muster_graph::ids::{Attempt, StageIndex, TaskId};
use muster_graph::spec::{Retries, When};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fact {
    Launched(Attempt),
    Failed(Attempt, FailureClass, bool),
    Succeeded(Attempt),
    GivenUp,
}

#[derive(Default)]
pub(crate) struct Facts {
    of: BTreeMap<TaskId, Vec<Fact>>,
}

fn budget(retries: &Retries, class: FailureClass) -> u8 {
    let budgets = [
        retries.failed,
        retries.timed_out,
        retries.out_of_memory,
        retries.executor_lost,
        retries.launch_refused,
        retries.input_unreadable,
    ];
    budgets[class as usize]
}

impl Facts {
    pub(crate) fn hear(&mut self, event: &Event, effects: &[Effect], before: &[Vec<Task>]) {
        let ignored = effects.iter().any(|effect| matches!(effect, Effect::Ignored { .. }));
        if let Event::AttemptFinished { task, attempt, end, .. } = event
            && matches!(end.outcome, Outcome::Succeeded(_))
            && !ignored
        {
            self.of.entry(*task).or_default().push(Fact::Succeeded(*attempt));
        }
        if let Event::WentDown { task, verdict: Verdict::GivenUp, .. } = event
            && !ignored
        {
            self.of.entry(*task).or_default().push(Fact::GivenUp);
        }
        for effect in effects {
            match effect {
                Effect::Launch { task, attempt, .. } => {
                    self.of.entry(*task).or_default().push(Fact::Launched(*attempt));
                }
                Effect::Emit(JobEvent::AttemptFailed(note)) => {
                    let fact = Fact::Failed(note.attempt, note.class, note.is_final);
                    self.of.entry(note.task).or_default().push(fact);
                }
                // Budgets begin anew; what was successful keeps its story.
                Effect::Emit(JobEvent::RetryRequested { .. }) => self.of.retain(|task, _| {
                    let was = &before[task.stage.0 as usize][task.index.0 as usize];
                    was.state.phase() == TaskPhase::Successful
                }),
                _ => {}
            }
        }
    }

    /// Judges every task of a job that is over.
    pub(crate) fn judge(&self, graph: &ExecutionGraph) {
        for (stage, _) in graph.stages() {
            for (index, task) in graph.tasks(stage, 0..u32::MAX) {
                let id = TaskId { stage, index };
                let facts = self.of.get(&id).map_or(&[][..], Vec::as_slice);
                let explained = match task.state {
                    TaskState::Successful(_) => facts.last() == Some(&Fact::Succeeded(task.attempt)),
                    TaskState::Failed(ended) => Self::may_fail(graph, stage, &task, ended.class, facts),
                    TaskState::Cancelled => Self::may_be_cancelled(graph, stage),
                    _ => false,
                };
                assert!(explained, "{id:?} ended as {task:?}, which {facts:?} do not explain");
            }
        }
    }

    fn may_fail(graph: &ExecutionGraph, stage: StageIndex, task: &Task, class: FailureClass, facts: &[Fact]) -> bool {
        let plan = &graph.plan().stages[stage.0 as usize];
        let failures = facts.iter().filter(|fact| matches!(fact, Fact::Failed(_, other, _) if *other == class)).count();
        let stopped = plan.stop_after.is_some_and(|limit| graph.stage_counts(stage).failed >= limit);
        let own = matches!(class, FailureClass::Failed | FailureClass::TimedOut | FailureClass::OutOfMemory);
        let given_up = class == FailureClass::ExecutorLost && facts.iter().rev().nth(1) == Some(&Fact::GivenUp);
        facts.last() == Some(&Fact::Failed(task.attempt, class, true))
            && (failures > usize::from(budget(&plan.retries, class)) || (stopped && own) || given_up)
    }

    fn may_be_cancelled(graph: &ExecutionGraph, stage: StageIndex) -> bool {
        let plan = &graph.plan().stages[stage.0 as usize];
        let state = |stage: StageIndex| graph.stage(stage).map(|record| record.state);
        let asked = graph.job().cancel.is_some() || graph.job().timed_out;
        (asked && plan.when != When::Always)
            || state(stage) == Some(StageState::Skipped)
            || plan.stop_after.is_some_and(|limit| graph.stage_counts(stage).failed >= limit)
            || plan.upstreams.iter().any(|upstream| state(upstream.stage) != Some(StageState::Successful))
    }
}
