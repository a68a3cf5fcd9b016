//! A job, driven by hand: each step returns the whole list of effects.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_graph::execution::{
    AnswerScope, AttemptEnd, Effect, Event, ExecutionGraph, ExecutorRef, Exit, FailureClass, FailureNote, JobEvent,
    JobState, Outcome, Output, StageReason, StageState, TaskPhase, UnreadableInput, Why,
};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, StageIndex, TaskId};
use muster_graph::plan::{Plan, StagePlan};

use crate::plans;

pub(crate) struct Job {
    pub(crate) graph: ExecutionGraph,
    pub(crate) at: Millis,
}

/// First life of an executor.
pub(crate) fn on(id: &str) -> ExecutorKey {
    life(id, 1)
}

pub(crate) fn life(id: &str, incarnation: u64) -> ExecutorKey {
    ExecutorKey { id: id.to_owned(), incarnation }
}

pub(crate) fn task(stage: u32, index: u32) -> TaskId {
    TaskId::new(stage, index)
}

pub(crate) fn launch(stage: u32, index: u32, attempt: Attempt, on: u32) -> Effect {
    Effect::Launch { task: task(stage, index), attempt, on: ExecutorRef(on) }
}

pub(crate) fn cancel_attempt(stage: u32, index: u32, attempt: Attempt, on: u32) -> Effect {
    Effect::CancelAttempt { task: task(stage, index), attempt, on: ExecutorRef(on) }
}

pub(crate) fn moved(stage: u32, state: StageState) -> Effect {
    Effect::Emit(JobEvent::StageMoved { stage: StageIndex(stage), state })
}

pub(crate) fn job_moved(state: JobState) -> Effect {
    Effect::Emit(JobEvent::JobMoved { state })
}

pub(crate) fn outputs_lost(stage: u32, tasks: u32) -> Effect {
    Effect::Emit(JobEvent::OutputsLost { stage: StageIndex(stage), tasks })
}

pub(crate) fn inputs_changed(stage: u32, tasks: u32) -> Effect {
    Effect::Emit(JobEvent::InputsChanged { stage: StageIndex(stage), tasks })
}

pub(crate) fn ignored(why: Why) -> Vec<Effect> {
    vec![Effect::Ignored { why }]
}

/// An output with files; equal numbers are equal contents.
pub(crate) fn output(checksum: u64) -> Outcome {
    Outcome::Succeeded(Output { bytes: 10, checksum, files: 1 })
}

pub(crate) const FAILED: Outcome = Outcome::Failed(FailureClass::Failed);

impl Job {
    /// A job to which `Submitted` has already happened.
    pub(crate) fn of(stages: impl IntoIterator<Item = StagePlan>) -> Self {
        Self::with(plans::plan(stages))
    }

    pub(crate) fn with(plan: Plan) -> Self {
        let mut job = Self { graph: ExecutionGraph::new(Arc::new(plan), JobId(1)), at: 1_000 };
        job.apply(Event::Submitted);
        job
    }

    pub(crate) fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.graph.apply(event, self.at, &mut effects);
        effects
    }

    pub(crate) fn assign(&mut self, stage: u32, on: ExecutorKey, count: u32) -> Vec<Effect> {
        self.apply(Event::Assigned { stage: StageIndex(stage), on, count })
    }

    pub(crate) fn start(&mut self, stage: u32, index: u32, attempt: Attempt, by: ExecutorKey) -> Vec<Effect> {
        let started_at = self.at;
        self.apply(Event::AttemptStarted { task: task(stage, index), attempt, by, started_at })
    }

    pub(crate) fn end(
        &mut self,
        stage: u32,
        index: u32,
        attempt: Attempt,
        by: ExecutorKey,
        outcome: Outcome,
    ) -> Vec<Effect> {
        self.end_with(stage, index, attempt, by, outcome, Vec::new())
    }

    pub(crate) fn end_with(
        &mut self,
        stage: u32,
        index: u32,
        attempt: Attempt,
        by: ExecutorKey,
        outcome: Outcome,
        unreadable: Vec<UnreadableInput>,
    ) -> Vec<Effect> {
        let end = AttemptEnd {
            outcome,
            started_at: self.at,
            finished_at: self.at,
            exit: Exit::Code(1),
            message: "as told".to_owned(),
            unreadable,
        };
        self.apply(Event::AttemptFinished { task: task(stage, index), attempt, by, end })
    }

    /// Assigns the lowest ready task of a stage to executor `a` and lets it end.
    pub(crate) fn run(&mut self, stage: u32, outcome: Outcome) -> Vec<Effect> {
        self.run_on("a", stage, outcome)
    }

    pub(crate) fn run_on(&mut self, id: &str, stage: u32, outcome: Outcome) -> Vec<Effect> {
        let effects = self.assign(stage, on(id), 1);
        let launched = effects.iter().find_map(|effect| match effect {
            Effect::Launch { task, attempt, .. } => Some((task.index.0, *attempt)),
            _ => None,
        });
        let (index, attempt) = launched.unwrap_or_else(|| panic!("stage {stage} has nothing ready: {effects:?}"));
        self.end(stage, index, attempt, on(id), outcome)
    }

    pub(crate) fn lose(&mut self, id: &str) -> Vec<Effect> {
        self.apply(Event::ExecutorLost { executor: on(id) })
    }

    pub(crate) fn answer(
        &mut self,
        by: ExecutorKey,
        held: impl IntoIterator<Item = (TaskId, Attempt)>,
        scope: AnswerScope,
    ) -> Vec<Effect> {
        self.apply(Event::ExecutorAnswered { by, held: BTreeSet::from_iter(held), scope })
    }

    pub(crate) fn cancel(&mut self) -> Vec<Effect> {
        self.apply(Event::CancelRequested { reason: "enough".to_owned() })
    }

    pub(crate) fn cancel_emitted() -> Effect {
        Effect::Emit(JobEvent::CancelRequested { reason: "enough".to_owned() })
    }

    pub(crate) fn note(
        &self,
        id: TaskId,
        attempt: Attempt,
        on: u32,
        class: FailureClass,
        message: &str,
        is_final: bool,
    ) -> Effect {
        let seen = matches!(class, FailureClass::ExecutorLost | FailureClass::LaunchRefused);
        Effect::Emit(JobEvent::AttemptFailed(FailureNote {
            task: id,
            attempt,
            on: ExecutorRef(on),
            class,
            exit: if seen { Exit::None } else { Exit::Code(1) },
            message: message.to_owned(),
            at: self.at,
            is_final,
        }))
    }

    pub(crate) fn state(&self, stage: u32) -> StageState {
        self.graph.stage(StageIndex(stage)).expect("it is in the plan").state
    }

    pub(crate) fn reason(&self, stage: u32) -> StageReason {
        self.graph.stage(StageIndex(stage)).expect("it is in the plan").reason
    }

    pub(crate) fn inputs_revision(&self, stage: u32) -> u32 {
        self.graph.stage(StageIndex(stage)).expect("it is in the plan").inputs_revision
    }

    pub(crate) fn phases(&self, stage: u32) -> Vec<TaskPhase> {
        self.graph.tasks(StageIndex(stage), 0..u32::MAX).map(|(_, task)| task.state.phase()).collect()
    }

    pub(crate) fn spent(&self, stage: u32, index: u32) -> [u8; 6] {
        self.graph.task(task(stage, index)).expect("it is in the plan").spent
    }

    pub(crate) fn ready(&self) -> Vec<(u32, u32)> {
        self.graph.ready().map(|ready| (ready.stage.0, ready.count)).collect()
    }

    /// Lets the time of the next timer come.
    pub(crate) fn fire(&mut self) -> Vec<Effect> {
        self.at = self.graph.next_timer().expect("a timer is armed").max(self.at);
        self.apply(Event::TimerFired)
    }
}
