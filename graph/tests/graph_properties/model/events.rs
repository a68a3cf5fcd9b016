//! What each event does at once, before the stages settle.

use std::collections::BTreeSet;

use muster_graph::execution::{
    AnswerScope, Event, FailureClass, JobState, Outcome, TaskPhase, UnreadableInput, Verdict,
};
use muster_graph::ids::{Attempt, ExecutorKey, Millis, TaskId};
use muster_graph::plan::{Edge, Upstream};
use muster_graph::spec::When;

use super::{Model, ModelTask, PENDING, Stand, State};

impl Model {
    /// Takes an event in. `Err` means that it must change nothing.
    pub(crate) fn apply(&mut self, event: &Event, at: Millis) -> Result<(), ()> {
        self.clock = self.clock.max(at);
        let done = self.event(event, at);
        self.settle();
        done
    }

    pub(super) fn event(&mut self, event: &Event, at: Millis) -> Result<(), ()> {
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
                    Outcome::GivenBack if was == TaskPhase::Assigned && end.started_at == 0 => {
                        let state = self.rest(s, task.index.0 as usize);
                        self.stages[s].tasks[task.index.0 as usize].state = state;
                        self.note_lost_upstream(s, task.index.0 as usize);
                    }
                    Outcome::Cancelled | Outcome::GivenBack => {
                        self.fail(*task, FailureClass::ExecutorLost, true, false, at);
                    }
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
            Event::WentDown { task, attempt, with, verdict, .. } => {
                self.awaited(*task, *attempt, with).ok_or(())?;
                self.went_down(*task, *verdict, at);
                Ok(())
            }
            Event::OutputLost { task, attempt } => self.lose(*task, *attempt),
            Event::OutputMoved { task, attempt, from, to } => {
                let over = self.over();
                let known = self.get(*task).ok_or(())?;
                let State::Successful { on, checksum, files } = &known.state else { return Err(()) };
                if over || *files == 0 || known.attempt != *attempt || on.id != *from || to.id == *from {
                    return Err(());
                }
                let state = State::Successful { on: to.clone(), checksum: *checksum, files: *files };
                self.stages[task.stage.0 as usize].tasks[task.index.0 as usize].state = state;
                self.lost.remove(to);
                Ok(())
            }
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

    pub(super) fn assign(&mut self, s: usize, on: &ExecutorKey, count: u32, at: Millis) -> Result<(), ()> {
        if s >= self.stages.len() || count == 0 {
            return Err(());
        }
        // Stable: the lowest first among those that lie close, and among the others.
        let mut chosen: Vec<u32> = self.ready(s);
        chosen.sort_by_key(|i| !self.lies_close(s, *i as usize, &on.id));
        chosen.truncate(count as usize);
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

    /// Whether it reads, task by task, an output on that executor.
    fn lies_close(&self, s: usize, i: usize, executor: &str) -> bool {
        self.plan.stages[s].upstreams.iter().filter(|upstream| upstream.edge == Edge::Each).any(|upstream| {
            let above = &self.stages[upstream.stage.0 as usize].tasks[i];
            matches!(&above.state, State::Successful { on, files, .. } if on.id == executor && *files > 0)
        })
    }

    pub(super) fn awaited(&self, id: TaskId, attempt: Attempt, by: &ExecutorKey) -> Option<&ModelTask> {
        self.get(id).filter(|task| {
            task.attempt == attempt
                && task.holder().is_some_and(|on| on.id == by.id && on.incarnation <= by.incarnation)
        })
    }

    pub(super) fn rest(&self, s: usize, i: usize) -> State {
        if self.may_run(s, i) { PENDING } else { State::Cancelled }
    }

    pub(super) fn note_lost_upstream(&mut self, s: usize, i: usize) {
        if !self.cancelling(s) && !self.stopped(s) && self.doomed(s, i) {
            self.stages[s].lost_upstream = true;
        }
    }

    pub(super) fn fail(&mut self, id: TaskId, class: FailureClass, counts: bool, backs_off: bool, at: Millis) {
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

    fn went_down(&mut self, id: TaskId, verdict: Verdict, at: Millis) {
        let (s, i) = (id.stage.0 as usize, id.index.0 as usize);
        let class = FailureClass::ExecutorLost;
        match verdict {
            Verdict::HeldBack { until } => {
                self.fail(id, class, true, false, at);
                self.stages[s].tasks[i].backoff = Some((until, until));
            }
            Verdict::GivenUp => {
                let task = &mut self.stages[s].tasks[i];
                let spent = &mut task.spent[class as usize];
                *spent = spent.saturating_add(1);
                task.state = State::Failed;
                if self.stopped(s) {
                    self.cancel_pending(s);
                }
            }
        }
    }

    pub(super) fn cancel_pending(&mut self, s: usize) {
        for task in self.stages[s].tasks.iter_mut().filter(|task| matches!(task.state, State::Pending { .. })) {
            task.state = State::Cancelled;
        }
    }

    pub(super) fn succeed(&mut self, id: TaskId, by: &ExecutorKey, checksum: u64, files: u32) {
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

    pub(super) fn read_wrongly(&mut self, c: usize, i: usize) {
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

    pub(super) fn reopen(&mut self, s: usize) {
        if self.stages[s].stand.over() {
            self.stages[s].stand = Stand::Running;
        }
    }

    pub(super) fn lose(&mut self, id: TaskId, attempt: Attempt) -> Result<(), ()> {
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

    pub(super) fn unreadable(&mut self, s: usize, inputs: &[UnreadableInput]) -> bool {
        let mut excused = false;
        for input in inputs {
            let reads = |up: &Upstream| up.stage == input.task.stage && up.edge != Edge::After;
            if !self.plan.stages[s].upstreams.iter().any(reads) {
                continue;
            }
            let moved = self.get(input.task).is_some_and(|task| match &task.state {
                State::Successful { on, files, .. } => {
                    *files > 0 && task.attempt == input.attempt && !input.on.is_empty() && on.id != input.on
                }
                _ => false,
            });
            if moved {
                excused = true;
            } else if input.gone {
                let _ = self.lose(input.task, input.attempt);
                excused |= self.get(input.task).is_some_and(|task| task.live() && task.generation <= 8);
            }
        }
        excused
    }

    pub(super) fn answered(
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
                let class = if running || earlier { FailureClass::ExecutorLost } else { FailureClass::LaunchRefused };
                self.fail(id, class, true, false, at);
            }
        }
        Ok(())
    }

    pub(super) fn wind_down(&mut self) {
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

    pub(super) fn retry(&mut self) -> Result<(), ()> {
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
}
