//! How stages come to their states: conditions, skipping, ending, reopening, and the job's end.
//!
//! Changes travel downwards through a list of stages to look at, never by recursion: a chain of any length is walked in
//! constant stack and in time proportional to the edges that changed.

use super::graph::{Step, is_whole};
use super::packed::{Packed, TaskPhase};
use super::tracking::Standing;
use super::{ExecutionGraph, JobState, StageReason, StageRecord, StageState, TaskState, Why};
use crate::ids::{StageIndex, TaskId, TaskIndex};
use crate::plan::Upstream;
use crate::spec::{Gate, When};

/// What becomes of an unresolved stage.
enum Decision {
    Wait,
    Resolve,
    Skip(StageReason),
    Cancel,
}

impl ExecutionGraph {
    pub(super) fn submitted(&mut self, step: &mut Step<'_>) {
        if self.submitted {
            return step.ignore(Why::Duplicate);
        }
        self.begin();
    }

    /// Lets the first stages resolve. The job's record goes into the next delta, which is how a restore knows.
    pub(super) fn begin(&mut self) {
        self.submitted = true;
        self.changes.job = true;
        for stage in 0..self.stages.len() as u32 {
            if self.stage_plan(stage).upstreams.is_empty() {
                self.look_at(stage);
            }
        }
    }

    /// Looks at every stage that asked for it, until none does; then ends the job if all stages are over.
    pub(super) fn settle(&mut self, step: &mut Step<'_>) {
        loop {
            while let Some(stage) = self.work.pop_front() {
                self.stages[stage as usize].queued = false;
                self.evaluate(stage, step);
            }
            if !std::mem::take(&mut self.need_revived) {
                break;
            }
            self.remake_lost(step);
        }
        if self.submitted && !self.is_over() && self.stages_over as usize == self.stages.len() {
            self.end_job(step);
        }
    }

    fn end_job(&mut self, step: &mut Step<'_>) {
        let any = |wanted: StageState| self.stages.iter().any(|stage| stage.record.state == wanted);
        let cut_short = self.is_ending() && any(StageState::Cancelled);
        let state = if cut_short && !self.record.timed_out {
            JobState::Cancelled
        } else if cut_short || any(StageState::Failed) {
            JobState::Failed
        } else {
            JobState::Successful
        };
        self.record.finished_at = step.at;
        self.set_job_state(state, step);
    }

    fn evaluate(&mut self, stage: u32, step: &mut Step<'_>) {
        if self.stage_plan(stage).gate == Some(Gate::End) {
            return self.decide_end(stage, step);
        }
        let record = self.stages[stage as usize].record;
        match record.state {
            StageState::Unresolved => self.decide_unresolved(stage, step),
            StageState::Resolved | StageState::Running => self.decide_begun(stage, step),
            StageState::Skipped if record.reason == StageReason::NothingFailed => self.reconsider_skipped(stage, step),
            StageState::Successful | StageState::Failed | StageState::Cancelled | StageState::Skipped => {}
        }
    }

    fn decide_unresolved(&mut self, stage: u32, step: &mut Step<'_>) {
        match self.decision(stage) {
            Decision::Wait => {}
            Decision::Resolve => {
                let record = StageRecord { state: StageState::Resolved, ..self.stages[stage as usize].record };
                self.set_stage(stage, record, step);
                self.look_at(stage);
            }
            Decision::Skip(reason) => {
                self.cancel_pending(stage);
                self.end_stage(stage, StageState::Skipped, reason, step);
            }
            Decision::Cancel => {
                self.cancel_pending(stage);
                self.end_stage(stage, StageState::Cancelled, self.cancel_reason(), step);
            }
        }
    }

    fn decision(&self, stage: u32) -> Decision {
        let (plan, upstreams) = (self.stage_plan(stage), self.stages[stage as usize].upstreams);
        let total = plan.upstreams.len();
        if self.is_cancelling(stage) {
            return Decision::Cancel;
        }
        if let (When::OnFailure | When::Always, Some(begin)) = (plan.when, self.begin_of(stage)) {
            match Standing::of(&self.stages[begin.0 as usize].record) {
                Standing::Successful => {}
                Standing::Waiting | Standing::Begun => return Decision::Wait,
                Standing::Bad => return Decision::Skip(StageReason::UpstreamNotSuccessful(begin)),
                Standing::NothingFailed => return Decision::Skip(StageReason::NothingFailed),
            }
        }
        match plan.when {
            When::OnSuccess => {
                let each = self.stages[stage as usize].each_total as usize;
                if upstreams.bad > 0 {
                    Decision::Skip(self.bad_upstream(stage))
                } else if upstreams.over as usize == total && upstreams.nothing_failed > 0 {
                    Decision::Skip(StageReason::NothingFailed)
                } else if upstreams.each_begun as usize == each && upstreams.whole_successful as usize == total - each {
                    Decision::Resolve
                } else {
                    Decision::Wait
                }
            }
            When::OnFailure if (upstreams.over as usize) < total => Decision::Wait,
            When::OnFailure if upstreams.bad == 0 => Decision::Skip(StageReason::NothingFailed),
            When::Always if (upstreams.over as usize) < total => Decision::Wait,
            When::OnFailure | When::Always => Decision::Resolve,
        }
    }

    fn decide_begun(&mut self, stage: u32, step: &mut Step<'_>) {
        let value = &mut self.stages[stage as usize];
        let doom = std::mem::take(&mut value.doom_unseen) && value.upstreams.bad > 0;
        if doom && self.stage_plan(stage).when == When::OnSuccess {
            if self.stages[stage as usize].record.state == StageState::Resolved && !self.is_cancelling(stage) {
                self.cancel_pending(stage);
                let reason = self.bad_upstream(stage);
                return self.end_stage(stage, StageState::Skipped, reason, step);
            }
            self.cancel_doomed(stage, step);
        }
        self.refresh_gate(stage);
        if self.stages[stage as usize].counts.live() == 0 {
            self.complete(stage, step);
        }
    }

    /// A stage that was skipped because nothing failed waits again when an upstream of it was reopened.
    fn reconsider_skipped(&mut self, stage: u32, step: &mut Step<'_>) {
        if matches!(self.decision(stage), Decision::Skip(StageReason::NothingFailed)) || self.is_cancelling(stage) {
            return;
        }
        self.reset_cancelled(stage);
        let record = StageRecord {
            state: StageState::Unresolved,
            reason: StageReason::None,
            finished_at: 0,
            ..self.stages[stage as usize].record
        };
        self.set_stage(stage, record, step);
        self.need_revived = true;
        self.look_at(stage);
    }

    fn reset_cancelled(&mut self, stage: u32) {
        for index in 0..self.stages[stage as usize].tasks.len() as u32 {
            if self.stages[stage as usize].tasks[index as usize].phase() == TaskPhase::Cancelled {
                self.set_task_state(stage, index, TaskState::Pending { not_before: 0 });
            }
        }
    }

    /// Ends a stage of which nothing is pending or held any more.
    fn complete(&mut self, stage: u32, step: &mut Step<'_>) {
        let (counts, record) = (self.stages[stage as usize].counts, self.stages[stage as usize].record);
        let (state, reason) = match record.reason {
            reason if counts.failed > 0 => (StageState::Failed, reason),
            _ if counts.cancelled == 0 => (StageState::Successful, StageReason::None),
            reason @ StageReason::UpstreamNotSuccessful(_) => (StageState::Failed, reason),
            _ => (StageState::Cancelled, self.cancel_reason()),
        };
        self.end_stage(stage, state, reason, step);
    }

    /// Lets a stage that is over go on, because tasks of it run again.
    pub(super) fn reopen(&mut self, stage: u32, step: &mut Step<'_>) {
        let record = self.stages[stage as usize].record;
        if record.state.is_over() {
            self.need_revived = true;
            self.set_stage(stage, StageRecord { state: StageState::Running, finished_at: 0, ..record }, step);
            self.look_at(stage);
        }
    }

    pub(super) fn cancel_reason(&self) -> StageReason {
        if self.record.timed_out { StageReason::JobTimedOut } else { StageReason::CancelRequested }
    }

    /// The first upstream, in the order of the spec, that ended without success.
    pub(super) fn bad_upstream(&self, stage: u32) -> StageReason {
        let bad = self.stage_plan(stage).upstreams.iter().find(|upstream| self.is_bad(upstream));
        bad.map_or(StageReason::None, |upstream| StageReason::UpstreamNotSuccessful(upstream.stage))
    }

    fn is_bad(&self, upstream: &Upstream) -> bool {
        self.stages.get(upstream.stage.0 as usize).is_some_and(|stage| Standing::of(&stage.record) == Standing::Bad)
    }

    /// The upstream whose end means that this task's inputs will not come.
    pub(super) fn doomed_by(&self, stage: u32, index: u32) -> Option<StageIndex> {
        let plan = self.stage_plan(stage);
        if plan.when != When::OnSuccess || self.stages[stage as usize].upstreams.bad == 0 {
            return None;
        }
        let came = |upstream: &Upstream| {
            let task = TaskId { stage: upstream.stage, index: TaskIndex(index) };
            !is_whole(upstream.edge) && self.packed(task).is_some_and(Packed::is_successful)
        };
        plan.upstreams.iter().find(|upstream| self.is_bad(upstream) && !came(upstream)).map(|upstream| upstream.stage)
    }

    fn cancel_doomed(&mut self, stage: u32, step: &mut Step<'_>) {
        if self.stages[stage as usize].counts.pending == 0 {
            return;
        }
        for index in 0..self.stages[stage as usize].tasks.len() as u32 {
            let is_pending = self.stages[stage as usize].tasks[index as usize].phase() == TaskPhase::Pending;
            if is_pending && self.doomed_by(stage, index).is_some() {
                let state = self.resting_state(stage, index, 0, step);
                self.set_task_state(stage, index, state);
            }
        }
    }

    /// Whether a task may run (again), as far as its stage and its upstreams' ends go.
    pub(super) fn may_run(&self, stage: u32, index: u32) -> bool {
        // A skipped stage may have successful tasks, from before a retry; it still starts nothing.
        self.stages[stage as usize].record.state != StageState::Skipped
            && !self.is_cancelling(stage)
            && !self.is_stopped(stage)
            && self.doomed_by(stage, index).is_none()
    }

    /// Where a task goes that is to run, or run again, from `not_before` on: pending if it may run, else cancelled, with
    /// the reason noted.
    pub(super) fn resting_state(&mut self, stage: u32, index: u32, not_before: u64, step: &mut Step<'_>) -> TaskState {
        if self.is_cancelling(stage) || self.is_stopped(stage) {
            return TaskState::Cancelled;
        }
        match self.doomed_by(stage, index) {
            None => TaskState::Pending { not_before },
            Some(upstream) => {
                let record = self.stages[stage as usize].record;
                if record.reason == StageReason::None {
                    let reason = StageReason::UpstreamNotSuccessful(upstream);
                    self.set_stage(stage, StageRecord { reason, ..record }, step);
                }
                TaskState::Cancelled
            }
        }
    }
}
