//! The reference: the rules again, in the slowest and plainest way.
//!
//! No counters, no worklist, no bitmaps, no stored standing: every question is answered by looking at everything, and the
//! stages are gone through again and again until none of them moves. It shares no code with the graph but the types of
//! events. After every event it must agree with the graph on every task, stage and ready list.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_graph::execution::{
    AnswerScope, Event, FailureClass, JobState, Outcome, StageState, TaskPhase, UnreadableInput,
};
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
        !self.cancelling(s) && !self.stopped(s) && !self.doomed(s, i)
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

    /// Takes an event in. `Err` means that it must change nothing.
    pub(crate) fn apply(&mut self, event: &Event, at: Millis) -> Result<(), ()> {
        self.clock = self.clock.max(at);
        let done = self.event(event, at);
        self.settle();
        done
    }

    fn event(&mut self, event: &Event, at: Millis) -> Result<(), ()> {
        match event {
            Event::Submitted if self.submitted => Err(()),
            Event::Submitted => {
                self.submitted = true;
                Ok(())
            }
            Event::Assigned { stage, on, count } => self.assign(stage.0 as usize, on, *count, at),
            Event::LaunchRefused { task, attempt, by, .. } => {
                let state = &self.awaited(*task, *attempt, by).ok_or(())?.state;
                if matches!(state, State::Running(_)) {
                    return Err(());
                }
                self.fail(*task, FailureClass::LaunchRefused, true, true, at);
                Ok(())
            }
            Event::AttemptStarted { task, attempt, by, .. } => {
                let state = &self.awaited(*task, *attempt, by).ok_or(())?.state;
                if matches!(state, State::Running(_)) {
                    return Err(());
                }
                self.stages[task.stage.0 as usize].tasks[task.index.0 as usize].state = State::Running(by.clone());
                self.lost.remove(by);
                Ok(())
            }
            Event::AttemptFinished { task, attempt, by, end } => {
                let was = self.awaited(*task, *attempt, by).ok_or(())?.phase();
                let s = task.stage.0 as usize;
                match end.outcome {
                    Outcome::Succeeded(output) => self.succeed(*task, by, output.checksum, output.files),
                    Outcome::Failed(FailureClass::InputUnreadable) => {
                        let excused = self.unreadable(s, &end.unreadable);
                        self.fail(*task, FailureClass::InputUnreadable, !excused, !excused, at);
                    }
                    Outcome::Failed(class) => {
                        self.fail(*task, class, true, class != FailureClass::ExecutorLost, at);
                    }
                    Outcome::Cancelled if self.cancelling(s) || self.stopped(s) => {
                        self.stages[s].tasks[task.index.0 as usize].state = State::Cancelled;
                    }
                    Outcome::Cancelled if was == TaskPhase::Assigned && end.started_at == 0 => {
                        self.fail(*task, FailureClass::LaunchRefused, true, true, at);
                    }
                    Outcome::Cancelled => self.fail(*task, FailureClass::ExecutorLost, true, false, at),
                }
                Ok(())
            }
            Event::ExecutorAnswered { by, held, scope } => self.answered(by, held, *scope, at),
            Event::ExecutorLost { executor } => {
                if self.over() {
                    return Err(());
                }
                let hit = |on: &ExecutorKey| on.id == executor.id && on.incarnation <= executor.incarnation;
                for (s, i) in self.ids() {
                    if let State::Successful { on, files, .. } = &self.stages[s].tasks[i].state
                        && hit(on)
                        && *files > 0
                    {
                        self.lost.insert(on.clone());
                    }
                }
                for (s, i) in self.ids() {
                    if self.stages[s].tasks[i].holder().is_some_and(hit) {
                        self.fail(TaskId::new(s as u32, i as u32), FailureClass::ExecutorLost, true, false, at);
                    }
                }
                Ok(())
            }
            Event::OutputLost { task, attempt } => self.lose(*task, *attempt),
            Event::CancelRequested { .. } if self.over() || self.ending => Err(()),
            Event::CancelRequested { .. } => {
                self.wind_down();
                Ok(())
            }
            Event::RetryRequested => self.retry(),
            Event::TimerFired => {
                let deadline = self.plan.timeout_ms.map(|timeout| self.started_at + timeout);
                let due = self.started_at > 0 && deadline.is_some_and(|deadline| deadline <= self.clock);
                if due && !self.over() && !self.ending {
                    self.timed_out = true;
                    self.wind_down();
                }
                Ok(())
            }
        }
    }

    fn assign(&mut self, s: usize, on: &ExecutorKey, count: u32, at: Millis) -> Result<(), ()> {
        if s >= self.stages.len() || count == 0 {
            return Err(());
        }
        let chosen: Vec<u32> = self.ready(s).into_iter().take(count as usize).collect();
        if chosen.is_empty() {
            return Err(());
        }
        self.lost.remove(on);
        if self.started_at == 0 {
            self.started_at = at;
        }
        self.job = JobState::Running;
        self.stages[s].stand = Stand::Running;
        for i in chosen {
            let task = &mut self.stages[s].tasks[i as usize];
            task.attempt += 1;
            task.state = State::Assigned(on.clone());
        }
        Ok(())
    }

    fn awaited(&self, id: TaskId, attempt: Attempt, by: &ExecutorKey) -> Option<&ModelTask> {
        self.get(id).filter(|task| {
            task.attempt == attempt
                && task.holder().is_some_and(|on| on.id == by.id && on.incarnation <= by.incarnation)
        })
    }

    fn rest(&self, s: usize, i: usize) -> State {
        if self.may_run(s, i) { PENDING } else { State::Cancelled }
    }

    fn note_lost_upstream(&mut self, s: usize, i: usize) {
        if !self.cancelling(s) && !self.stopped(s) && self.doomed(s, i) {
            self.stages[s].lost_upstream = true;
        }
    }

    fn fail(&mut self, id: TaskId, class: FailureClass, counts: bool, backs_off: bool, at: Millis) {
        let (s, i) = (id.stage.0 as usize, id.index.0 as usize);
        let retries = self.plan.stages[s].retries.clone();
        let (stopped, rest) = (self.stopped(s), self.rest(s, i));
        let task = &mut self.stages[s].tasks[i];
        let place = FailureClass::ALL.iter().position(|each| *each == class).expect("all are listed");
        if counts {
            task.spent[place] = task.spent[place].saturating_add(1);
        }
        let budget = match class {
            FailureClass::Failed => retries.failed,
            FailureClass::TimedOut => retries.timed_out,
            FailureClass::OutOfMemory => retries.out_of_memory,
            FailureClass::ExecutorLost => retries.executor_lost,
            FailureClass::LaunchRefused => retries.launch_refused,
            FailureClass::InputUnreadable => retries.input_unreadable,
        };
        let own = matches!(class, FailureClass::Failed | FailureClass::TimedOut | FailureClass::OutOfMemory);
        if task.spent[place] > budget || (stopped && own) {
            task.state = State::Failed;
            if self.stopped(s) {
                self.cancel_pending(s);
            }
            return;
        }
        if rest == PENDING && backs_off {
            let (first, max) = (retries.backoff.as_millis() as u64, retries.backoff_max.as_millis() as u64);
            let whole = match class {
                FailureClass::LaunchRefused => first.min(1_000),
                _ => (0..task.spent[place].saturating_sub(1)).fold(first, |wait, _| (wait * 2).min(max)).min(max),
            };
            task.backoff = Some((at + whole / 2, at + whole));
        }
        task.state = rest;
        self.note_lost_upstream(s, i);
    }

    fn cancel_pending(&mut self, s: usize) {
        for task in self.stages[s].tasks.iter_mut().filter(|task| matches!(task.state, State::Pending { .. })) {
            task.state = State::Cancelled;
        }
    }

    fn succeed(&mut self, id: TaskId, by: &ExecutorKey, checksum: u64, files: u32) {
        let (s, i) = (id.stage.0 as usize, id.index.0 as usize);
        let task = &mut self.stages[s].tasks[i];
        let before = task.given_up.take();
        let again = task.generation > 0;
        task.state = State::Successful { on: by.clone(), checksum, files };
        self.lost.remove(by);
        if again && (before != Some(checksum) || !self.plan.stages[s].deterministic) {
            for c in 0..self.stages.len() {
                for up in self.plan.stages[c].upstreams.clone() {
                    if up.stage.0 as usize == s && up.edge != Edge::After && !self.stages[c].stand.skipped() {
                        let all: Vec<usize> = (0..self.stages[c].tasks.len()).collect();
                        let readers = if up.edge == Edge::Each { vec![i] } else { all };
                        for reader in readers {
                            self.read_wrongly(c, reader);
                        }
                    }
                }
            }
        }
    }

    fn read_wrongly(&mut self, c: usize, i: usize) {
        let state = self.rest(c, i);
        let task = &mut self.stages[c].tasks[i];
        match task.phase() {
            TaskPhase::Successful => task.give_up(state),
            TaskPhase::Assigned | TaskPhase::Running => task.state = state,
            _ => return,
        }
        self.note_lost_upstream(c, i);
        self.reopen(c);
    }

    fn reopen(&mut self, s: usize) {
        if self.stages[s].stand.over() {
            self.stages[s].stand = Stand::Running;
        }
    }

    fn lose(&mut self, id: TaskId, attempt: Attempt) -> Result<(), ()> {
        let (s, i) = (id.stage.0 as usize, id.index.0 as usize);
        let task = self.get(id).ok_or(())?;
        let has = matches!(task.state, State::Successful { files, .. } if files > 0);
        if self.over() || !has || task.attempt != attempt || !self.needed(s, i) || !self.may_run(s, i) {
            return Err(());
        }
        self.stages[s].tasks[i].give_up(PENDING);
        self.reopen(s);
        Ok(())
    }

    fn unreadable(&mut self, s: usize, inputs: &[UnreadableInput]) -> bool {
        let mut excused = false;
        for input in inputs.iter().filter(|input| input.gone) {
            let reads = |up: &muster_graph::plan::Upstream| up.stage == input.task.stage && up.edge != Edge::After;
            if self.plan.stages[s].upstreams.iter().any(reads) {
                let _ = self.lose(input.task, input.attempt);
                excused |= self.get(input.task).is_some_and(|task| task.live() && task.generation <= 8);
            }
        }
        excused
    }

    fn answered(
        &mut self,
        by: &ExecutorKey,
        held: &BTreeSet<(TaskId, Attempt)>,
        scope: AnswerScope,
        at: Millis,
    ) -> Result<(), ()> {
        if self.over() {
            return Err(());
        }
        for (s, i) in self.ids() {
            let id = TaskId::new(s as u32, i as u32);
            let task = &mut self.stages[s].tasks[i];
            let Some(on) = task.holder().filter(|on| on.id == by.id && on.incarnation <= by.incarnation) else {
                continue;
            };
            let earlier = on.incarnation < by.incarnation;
            let running = matches!(task.state, State::Running(_));
            if held.contains(&(id, task.attempt)) {
                self.lost.remove(by);
                task.state = if running { State::Running(by.clone()) } else { State::Assigned(by.clone()) };
            } else if earlier || scope == AnswerScope::Everything {
                let class = if running { FailureClass::ExecutorLost } else { FailureClass::LaunchRefused };
                self.fail(id, class, true, false, at);
            }
        }
        Ok(())
    }

    fn wind_down(&mut self) {
        self.submitted = true;
        self.ending = true;
        if self.job == JobState::Queued {
            self.job = JobState::Running;
        }
        for s in 0..self.stages.len() {
            if self.cancelling(s) && !self.stages[s].stand.over() {
                self.cancel_pending(s);
            }
        }
    }

    fn retry(&mut self) -> Result<(), ()> {
        if !matches!(self.job, JobState::Failed | JobState::Cancelled) {
            return Err(());
        }
        let seeds: Vec<bool> =
            self.stages.iter().map(|stage| matches!(stage.stand, Stand::Failed | Stand::Cancelled)).collect();
        let mut below = vec![false; self.stages.len()];
        for _ in 0..self.stages.len() {
            for c in 0..self.stages.len() {
                below[c] |= self.plan.stages[c].upstreams.iter().any(|up| {
                    let u = up.stage.0 as usize;
                    seeds[u] || below[u]
                });
            }
        }
        for s in 0..self.stages.len() {
            let successful = self.stages[s].stand == Stand::Successful;
            let whole = below[s] && (successful || self.plan.stages[s].when != When::OnSuccess);
            if !seeds[s] && !below[s] {
                continue;
            }
            self.stages[s].stand = Stand::Unresolved;
            self.stages[s].lost_upstream = false;
            for task in &mut self.stages[s].tasks {
                match task.phase() {
                    TaskPhase::Successful if whole => task.give_up(PENDING),
                    TaskPhase::Failed | TaskPhase::Cancelled => task.state = PENDING,
                    _ => continue,
                }
                task.spent = [0; 6];
            }
        }
        (self.ending, self.timed_out, self.started_at, self.job) = (false, false, 0, JobState::Queued);
        Ok(())
    }

    /// Goes through all stages until none moves; then makes lost outputs again; and both again until nothing happens.
    fn settle(&mut self) {
        if !self.submitted || self.over() {
            return;
        }
        loop {
            while (0..self.stages.len()).any(|s| self.settle_stage(s)) {}
            if !self.make_lost_again() {
                break;
            }
        }
        if self.stages.iter().all(|stage| stage.stand.over()) {
            let any = |stand: Stand| self.stages.iter().any(|stage| stage.stand == stand);
            self.job = match () {
                () if self.timed_out && any(Stand::Cancelled) => JobState::Failed,
                () if self.ending && any(Stand::Cancelled) => JobState::Cancelled,
                () if any(Stand::Failed) => JobState::Failed,
                () => JobState::Successful,
            };
        }
    }

    fn settle_stage(&mut self, s: usize) -> bool {
        let was = self.stages[s].stand;
        let plan = self.plan.clone();
        let plan = &plan.stages[s];
        let ups: Vec<(Edge, Stand)> =
            plan.upstreams.iter().map(|up| (up.edge, self.stages[up.stage.0 as usize].stand)).collect();
        let any_bad = ups.iter().any(|(_, up)| up.bad());
        let all_over = ups.iter().all(|(_, up)| up.over());
        let nothing = ups.iter().any(|(_, up)| *up == Stand::SkippedForNothing);
        let skips_for_nothing = match plan.when {
            When::OnSuccess => !any_bad && all_over && nothing,
            When::OnFailure => all_over && !any_bad,
            When::Always => false,
        };
        let met = match plan.when {
            When::OnSuccess => ups.iter().all(|(edge, up)| match edge {
                Edge::Each => matches!(up, Stand::Resolved | Stand::Running | Stand::Successful),
                _ => *up == Stand::Successful,
            }),
            When::OnFailure => all_over && any_bad,
            When::Always => all_over,
        };
        let is = match was {
            Stand::Unresolved if self.cancelling(s) => Stand::Cancelled,
            Stand::Unresolved if plan.when == When::OnSuccess && any_bad => Stand::SkippedForUpstream,
            Stand::Unresolved if skips_for_nothing => Stand::SkippedForNothing,
            Stand::Unresolved if met => Stand::Resolved,
            Stand::Resolved if plan.when == When::OnSuccess && any_bad && !self.cancelling(s) => {
                Stand::SkippedForUpstream
            }
            Stand::Resolved | Stand::Running => {
                for i in 0..self.stages[s].tasks.len() {
                    if matches!(self.stages[s].tasks[i].state, State::Pending { .. }) && self.doomed(s, i) {
                        self.stages[s].lost_upstream = true;
                        self.stages[s].tasks[i].state = State::Cancelled;
                    }
                }
                self.ended(s).unwrap_or(was)
            }
            Stand::SkippedForNothing if !skips_for_nothing && !self.cancelling(s) => {
                for task in self.stages[s].tasks.iter_mut().filter(|task| task.state == State::Cancelled) {
                    task.state = PENDING;
                }
                Stand::Unresolved
            }
            other => other,
        };
        if is.skipped() || is == Stand::Cancelled {
            self.cancel_pending(s);
        }
        self.stages[s].stand = is;
        is != was
    }

    fn ended(&self, s: usize) -> Option<Stand> {
        let tasks = &self.stages[s].tasks;
        let any = |state: State| tasks.iter().any(|task| task.state == state);
        (!tasks.iter().any(ModelTask::live)).then(|| match () {
            () if any(State::Failed) => Stand::Failed,
            () if !any(State::Cancelled) => Stand::Successful,
            () if self.stages[s].lost_upstream => Stand::Failed,
            () => Stand::Cancelled,
        })
    }

    fn make_lost_again(&mut self) -> bool {
        let mut made = false;
        // Until nothing more is needed: no order is relied on.
        while let Some((s, i)) = self.ids().into_iter().find(|&(s, i)| {
            let task = &self.stages[s].tasks[i];
            matches!(&task.state, State::Successful { on, files, .. } if *files > 0 && self.lost.contains(on))
                && self.needed(s, i)
                && self.may_run(s, i)
        }) {
            self.stages[s].tasks[i].give_up(PENDING);
            self.reopen(s);
            made = true;
        }
        made
    }
}
