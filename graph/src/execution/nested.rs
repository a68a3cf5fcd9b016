//! Nested jobs: what becomes of their borders.
//!
//! A begin is a stage without tasks; only the stages inside treat it differently, which need its success whatever their own
//! condition. The end is computed anew whenever something inside moves, so it always says what became of the job: it is over when
//! everything inside is, and opens again when something inside runs again.

use super::graph::Step;
use super::{ExecutionGraph, StageReason, StageRecord, StageState};
use crate::ids::StageIndex;
use crate::plan::{Edge, Plan};
use crate::spec::{Gate, When};

/// Which stages a cancel does not touch: those that run always, and all that is in a nested job that does. Relies on the order of
/// a plan: begin, what is inside, end.
pub(super) fn outliving(plan: &Plan) -> Vec<bool> {
    let mut around = Vec::new();
    let outlives = plan.stages.iter().map(|stage| {
        let inherited = around.last().copied().unwrap_or(false);
        match stage.gate {
            None => inherited || stage.when == When::Always,
            Some(Gate::Begin) => {
                around.push(inherited || stage.when == When::Always);
                inherited || stage.when == When::Always
            }
            Some(Gate::End) => around.pop().unwrap_or(false),
        }
    });
    outlives.collect()
}

impl ExecutionGraph {
    /// The begin that a stage waits for, if it does so itself.
    pub(super) fn begin_of(&self, stage: u32) -> Option<StageIndex> {
        let first = self.stage_plan(stage).upstreams.first()?;
        let is_known = (first.stage.0 as usize) < self.stages.len();
        (first.edge == Edge::Begin && is_known).then_some(first.stage)
    }

    /// Brings the end of a nested job up to date.
    pub(super) fn decide_end(&mut self, stage: u32, step: &mut Step<'_>) {
        let (state, reason) = self.outcome(stage);
        let record = self.stages[stage as usize].record;
        if (record.state, record.reason) == (state, reason) {
            return;
        }
        if state.is_over() {
            self.end_stage(stage, state, reason, step);
        } else {
            self.set_stage(stage, StageRecord { state, reason, finished_at: 0, ..record }, step);
        }
    }

    /// What became of a nested job. Something that was skipped inside counts against it only if something was not successful for it.
    fn outcome(&self, stage: u32) -> (StageState, StageReason) {
        let (upstreams, plan) = (self.stages[stage as usize].upstreams, self.stage_plan(stage));
        if (upstreams.over as usize) < plan.upstreams.len() {
            return (StageState::Unresolved, StageReason::None);
        }
        let begin = self.begin_of(stage).map(|begin| self.stages[begin.0 as usize].record);
        match begin.map(|begin| (begin.state, begin.reason)) {
            Some((StageState::Skipped, reason)) => return (StageState::Skipped, reason),
            Some((StageState::Cancelled, reason)) => return (StageState::Cancelled, reason),
            _ if upstreams.bad == 0 => return (StageState::Successful, StageReason::None),
            _ => {}
        }
        let first = |wanted: StageState| {
            let mut inside =
                plan.upstreams.iter().filter_map(|upstream| Some((upstream.stage, self.stage(upstream.stage)?)));
            inside.find(|(_, record)| record.state == wanted)
        };
        match (first(StageState::Failed), first(StageState::Cancelled)) {
            (Some((failed, _)), _) => (StageState::Failed, StageReason::UpstreamNotSuccessful(failed)),
            (None, Some((_, cancelled))) => (StageState::Cancelled, cancelled.reason),
            (None, None) => (StageState::Failed, self.bad_upstream(stage)),
        }
    }
}
