//! Executors: their names, what they say they have, and their loss.

use std::collections::BTreeSet;

use super::attempts::{Failure, Next};
use super::graph::{Executor, Step};
use super::packed::{Packed, TaskPhase};
use super::{AnswerScope, Effect, ExecutionGraph, ExecutorRef, Exit, FailureClass, TaskState, Verdict, Why};
use crate::ids::{Attempt, ExecutorKey, Millis, TaskId};

impl ExecutionGraph {
    /// The job's own number for an executor's life; a new one if it was not heard of before.
    pub(super) fn intern(&mut self, key: ExecutorKey) -> ExecutorRef {
        if let Some(known) = self.executor_refs.get(&key) {
            return *known;
        }
        let new =
            ExecutorRef(u32::try_from(self.executors.len()).expect("each was assigned a task, and those are fewer"));
        self.executor_refs.insert(key.clone(), new);
        self.executors.push(Executor { key, held: 0, outputs: 0, lost: false });
        new
    }

    /// The number of an executor's life that gives a sign of being alive: what lies on it counts as readable (again).
    pub(super) fn heard_from(&mut self, key: ExecutorKey) -> ExecutorRef {
        let executor = self.intern(key);
        self.mark_lost(executor, false);
        executor
    }

    /// Marks an executor's life as lost, or as heard of again.
    pub(super) fn mark_lost(&mut self, executor: ExecutorRef, lost: bool) {
        let value = &mut self.executors[executor.0 as usize];
        if value.lost != lost {
            value.lost = lost;
            self.changes.lost.insert(executor.0);
            self.stranded = if lost { self.stranded + value.outputs } else { self.stranded - value.outputs };
        }
    }

    /// The known lives of an executor up to an incarnation.
    pub(super) fn lives(&self, id: &str, up_to: u64) -> Vec<ExecutorRef> {
        let key = |incarnation| ExecutorKey { id: id.to_owned(), incarnation };
        self.executor_refs.range(key(0)..=key(up_to)).map(|(_, executor)| *executor).collect()
    }

    /// What some of these lives have, in order.
    fn held_by(&self, lives: &[ExecutorRef]) -> Vec<(TaskId, Packed)> {
        let mut held = Vec::new();
        if lives.iter().all(|life| self.executors[life.0 as usize].held == 0) {
            return held;
        }
        for (stage, value) in (0u32..).zip(&self.stages).filter(|(_, value)| value.counts.held() > 0) {
            for (index, task) in (0u32..).zip(&value.tasks) {
                if task.is_live() && task.on().is_some_and(|on| lives.contains(&on)) {
                    held.push((TaskId::new(stage, index), *task));
                }
            }
        }
        held
    }

    /// The attempts that the graph believes an executor to have, in its lives up to this one.
    #[must_use]
    pub fn held_up_to(&self, executor: &ExecutorKey) -> Vec<(TaskId, Attempt)> {
        let held = self.held_by(&self.lives(&executor.id, executor.incarnation));
        held.into_iter().map(|(task, packed)| (task, packed.attempt)).collect()
    }

    pub(super) fn executor_lost(&mut self, executor: &ExecutorKey, step: &mut Step<'_>) {
        if self.is_over() {
            return step.ignore(Why::Over);
        }
        let lives = self.lives(&executor.id, executor.incarnation);
        let concerned = lives.iter().map(|life| &self.executors[life.0 as usize]);
        if !concerned.clone().any(|life| life.held > 0 || (life.outputs > 0 && !life.lost)) {
            return step.ignore(Why::NotConcerned);
        }
        let held = self.held_by(&lives);
        for life in lives {
            if self.executors[life.0 as usize].outputs > 0 {
                self.mark_lost(life, true);
            }
        }
        for (task, packed) in held {
            let message = format!("executor {} was lost", executor.id);
            self.fail_gone(task, &packed, FailureClass::ExecutorLost, message, Next::AtOnce, step);
        }
        // Once the stages are settled: a stage that just failed for it needs nothing any more.
        self.need_revived = true;
    }

    pub(super) fn went_down(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        with: &ExecutorKey,
        verdict: Verdict,
        message: String,
        step: &mut Step<'_>,
    ) {
        match (self.judge(task, attempt, with), self.packed(task).copied()) {
            (Ok(_), Some(packed)) => {
                let next = match verdict {
                    Verdict::HeldBack { until } => Next::NotBefore(until),
                    Verdict::GivenUp => Next::Never,
                };
                self.fail_gone(task, &packed, FailureClass::ExecutorLost, message, next, step);
            }
            (Err(why), _) => step.ignore(why),
            (Ok(_), None) => step.ignore(Why::Unknown),
        }
    }

    /// Fails an attempt that its executor does not have any more.
    fn fail_gone(
        &mut self,
        task: TaskId,
        packed: &Packed,
        class: FailureClass,
        message: String,
        next: Next,
        step: &mut Step<'_>,
    ) {
        let started_at: Millis = if packed.phase() == TaskPhase::Running { packed.time() } else { 0 };
        let (exit, finished_at) = (Exit::None, step.at);
        let failure = Failure { class, exit, message, started_at, finished_at, counts: true, next };
        self.fail(task, failure, step);
    }

    pub(super) fn executor_answered(
        &mut self,
        by: ExecutorKey,
        said: &BTreeSet<(TaskId, Attempt)>,
        scope: AnswerScope,
        step: &mut Step<'_>,
    ) {
        if self.is_over() {
            return step.ignore(Why::Over);
        }
        let lives = self.lives(&by.id, by.incarnation);
        let mut concerned = false;
        for (task, packed) in self.held_by(&lives) {
            let on = packed.on().expect("only assigned and running tasks are held");
            let incarnation = self.executors[on.0 as usize].key.incarnation;
            if said.contains(&(task, packed.attempt)) {
                concerned |= self.adopt(task, &packed, &by, step);
            } else if scope == AnswerScope::Everything || incarnation < by.incarnation {
                concerned = true;
                let (class, what) = match packed.phase() {
                    TaskPhase::Running => (FailureClass::ExecutorLost, "does not run it any more"),
                    // It may well have begun, and be the reason: a task that kills executors must not go on for ever
                    // because it is too quick for its start to be told.
                    _ if incarnation < by.incarnation => (FailureClass::ExecutorLost, "has started again without it"),
                    _ => (FailureClass::LaunchRefused, "never got it"),
                };
                self.fail_gone(task, &packed, class, format!("executor {} {what}", by.id), Next::AtOnce, step);
            }
        }
        concerned |= self.cancel_strays(&by, said, step);
        if !concerned {
            step.ignore(Why::NotConcerned);
        }
    }

    /// Goes on with an attempt that its executor has, under the incarnation in which it said so. The request to end it is
    /// made again where there was one: the owner that made it may have died before it was sent.
    fn adopt(&mut self, task: TaskId, packed: &Packed, by: &ExecutorKey, step: &mut Step<'_>) -> bool {
        let on = self.heard_from(by.clone());
        let moved = packed.on() != Some(on);
        if moved {
            let state = match packed.phase() {
                TaskPhase::Running => TaskState::Running { on, started_at: packed.time() },
                _ => TaskState::Assigned { on, at: packed.time() },
            };
            self.set_task_state(task.stage.0, task.index.0, state);
        }
        let cancelling = self.is_cancelling(task.stage.0);
        if cancelling {
            step.effects.push(Effect::CancelAttempt { task, attempt: packed.attempt, on });
        }
        moved || cancelling
    }

    /// Ends attempts that an executor has and that will never count, so that they do not keep its resources: an earlier
    /// owner may have died between the commit that gave them up and the call that was to end them.
    fn cancel_strays(&mut self, by: &ExecutorKey, said: &BTreeSet<(TaskId, Attempt)>, step: &mut Step<'_>) -> bool {
        let mut found = false;
        for &(task, attempt) in said {
            let Some(packed) = self.packed(task) else { continue };
            let is_current = packed.attempt == attempt
                && packed.on().and_then(|on| self.executor(on)).is_some_and(|on| on.id == by.id);
            if !is_current {
                let on = self.intern(by.clone());
                step.effects.push(Effect::CancelAttempt { task, attempt, on });
                found = true;
            }
        }
        found
    }
}
