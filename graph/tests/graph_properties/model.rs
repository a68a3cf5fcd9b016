//! The reference: the rules again, in the slowest and plainest way.
//!
//! No counters, no worklist, no bitmaps, no stored standing: every question is answered by looking at everything, and the
//! stages are gone through again and again until none of them moves. It shares no code with the graph but the types of
//! events. After every event it must agree with the graph on every task, stage and ready list.

mod events;
mod settling;

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_graph::execution::{JobState, StageState, TaskPhase};
use muster_graph::ids::{Attempt, ExecutorKey, Millis, TaskId};
use muster_graph::plan::{Edge, Plan, StagePlan};
use muster_graph::spec::When;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    /// The graph says until when, within bounds.
    Pending {
        not_before: Millis,
    },
    Assigned(ExecutorKey),
    Running(ExecutorKey),
    Successful {
        on: ExecutorKey,
        checksum: u64,
        files: u32,
    },
    Failed,
    Cancelled,
}

#[derive(Debug, Clone)]
pub(crate) struct ModelTask {
    pub attempt: Attempt,
    pub spent: [u8; 6],
    pub generation: u16,
    pub given_up: Option<u64>,
    pub state: State,
    /// A backoff between these was begun by the last event.
    pub backoff: Option<(Millis, Millis)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    Unresolved,
    Resolved,
    Running,
    Successful,
    Failed,
    Cancelled,
    SkippedForUpstream,
    SkippedForNothing,
}

impl Stand {
    pub(crate) fn over(self) -> bool {
        !matches!(self, Self::Unresolved | Self::Resolved | Self::Running)
    }

    fn bad(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::SkippedForUpstream)
    }

    fn skipped(self) -> bool {
        matches!(self, Self::SkippedForUpstream | Self::SkippedForNothing)
    }

    pub(crate) fn public(self) -> StageState {
        match self {
            Self::Unresolved => StageState::Unresolved,
            Self::Resolved => StageState::Resolved,
            Self::Running => StageState::Running,
            Self::Successful => StageState::Successful,
            Self::Failed => StageState::Failed,
            Self::Cancelled => StageState::Cancelled,
            Self::SkippedForUpstream | Self::SkippedForNothing => StageState::Skipped,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ModelStage {
    pub stand: Stand,
    /// A task was cancelled because its input will not come.
    pub lost_upstream: bool,
    pub tasks: Vec<ModelTask>,
}

pub(crate) struct Model {
    plan: Arc<Plan>,
    pub stages: Vec<ModelStage>,
    pub job: JobState,
    pub ending: bool,
    timed_out: bool,
    started_at: Millis,
    submitted: bool,
    clock: Millis,
    lost: BTreeSet<ExecutorKey>,
}

impl ModelTask {
    pub(crate) fn phase(&self) -> TaskPhase {
        match self.state {
            State::Pending { .. } => TaskPhase::Pending,
            State::Assigned(_) => TaskPhase::Assigned,
            State::Running(_) => TaskPhase::Running,
            State::Successful { .. } => TaskPhase::Successful,
            State::Failed => TaskPhase::Failed,
            State::Cancelled => TaskPhase::Cancelled,
        }
    }

    fn holder(&self) -> Option<&ExecutorKey> {
        match &self.state {
            State::Assigned(on) | State::Running(on) => Some(on),
            _ => None,
        }
    }

    fn live(&self) -> bool {
        self.phase() < TaskPhase::Successful
    }

    fn give_up(&mut self, state: State) {
        if let State::Successful { checksum, .. } = self.state {
            self.given_up = Some(checksum);
        }
        self.generation += 1;
        self.state = state;
    }
}

const PENDING: State = State::Pending { not_before: 0 };

impl Model {
    pub(crate) fn new(plan: Arc<Plan>) -> Self {
        let task =
            ModelTask { attempt: 0, spent: [0; 6], generation: 0, given_up: None, state: PENDING, backoff: None };
        let stage = |plan: &StagePlan| ModelStage {
            stand: Stand::Unresolved,
            lost_upstream: false,
            tasks: vec![task.clone(); plan.tasks as usize],
        };
        Self {
            stages: plan.stages.iter().map(stage).collect(),
            plan,
            job: JobState::Queued,
            ending: false,
            timed_out: false,
            started_at: 0,
            submitted: false,
            clock: 0,
            lost: BTreeSet::new(),
        }
    }

    fn get(&self, id: TaskId) -> Option<&ModelTask> {
        self.stages.get(id.stage.0 as usize)?.tasks.get(id.index.0 as usize)
    }

    fn ids(&self) -> Vec<(usize, usize)> {
        (0..self.stages.len()).flat_map(|s| (0..self.stages[s].tasks.len()).map(move |i| (s, i))).collect()
    }

    fn over(&self) -> bool {
        !matches!(self.job, JobState::Queued | JobState::Running)
    }

    fn cancelling(&self, s: usize) -> bool {
        self.ending && self.plan.stages[s].when != When::Always
    }

    fn stopped(&self, s: usize) -> bool {
        let failed = self.stages[s].tasks.iter().filter(|task| task.state == State::Failed).count();
        self.plan.stages[s].stop_after.is_some_and(|limit| failed as u32 >= limit)
    }

    fn succeeded(&self, s: usize, i: usize) -> bool {
        self.stages[s].tasks[i].phase() == TaskPhase::Successful
    }

    /// An upstream is over without success, and this task's input from it did not come.
    fn doomed(&self, s: usize, i: usize) -> bool {
        let plan = &self.plan.stages[s];
        plan.when == When::OnSuccess
            && plan.upstreams.iter().any(|up| {
                let u = up.stage.0 as usize;
                self.stages[u].stand.bad() && !(up.edge == Edge::Each && self.succeeded(u, i))
            })
    }

    fn may_run(&self, s: usize, i: usize) -> bool {
        !self.stages[s].stand.skipped() && !self.cancelling(s) && !self.stopped(s) && !self.doomed(s, i)
    }

    /// The tasks that may be assigned now.
    pub(crate) fn ready(&self, s: usize) -> Vec<u32> {
        let (plan, stage) = (&self.plan.stages[s], &self.stages[s]);
        let allowed = |i: usize| {
            plan.upstreams.iter().all(|up| {
                let u = up.stage.0 as usize;
                match (plan.when, up.edge) {
                    (When::OnSuccess, Edge::Each) => self.succeeded(u, i),
                    (When::OnSuccess, _) => self.stages[u].stand == Stand::Successful,
                    _ => self.stages[u].stand.over(),
                }
            })
        };
        if !matches!(stage.stand, Stand::Resolved | Stand::Running) {
            return Vec::new();
        }
        let waits_no_more =
            |task: &ModelTask| matches!(task.state, State::Pending { not_before } if not_before <= self.clock);
        let tasks = stage.tasks.iter().enumerate().filter(|(i, task)| waits_no_more(task) && allowed(*i));
        tasks.map(|(i, _)| i as u32).collect()
    }

    fn needed(&self, s: usize, i: usize) -> bool {
        let mut readers = 0;
        for (c, plan) in self.plan.stages.iter().enumerate() {
            for up in plan.upstreams.iter().filter(|up| up.stage.0 as usize == s && up.edge != Edge::After) {
                readers += 1;
                let wanted = match up.edge {
                    Edge::Each => self.stages[c].tasks[i].live(),
                    _ => !self.stages[c].stand.over(),
                };
                if wanted {
                    return true;
                }
            }
        }
        readers == 0 && !self.over()
    }
}
