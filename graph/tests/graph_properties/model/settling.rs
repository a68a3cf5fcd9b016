//! Where stages come to rest.

use muster_graph::execution::JobState;
use muster_graph::plan::Edge;
use muster_graph::spec::When;

use super::{Model, ModelTask, PENDING, Stand, State};

impl Model {
    /// Goes through all stages until none moves; then makes lost outputs again; and both again until nothing happens.
    pub(super) fn settle(&mut self) {
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

    pub(super) fn settle_stage(&mut self, s: usize) -> bool {
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

    pub(super) fn ended(&self, s: usize) -> Option<Stand> {
        let tasks = &self.stages[s].tasks;
        let any = |state: State| tasks.iter().any(|task| task.state == state);
        (!tasks.iter().any(ModelTask::live)).then(|| match () {
            () if any(State::Failed) => Stand::Failed,
            () if !any(State::Cancelled) => Stand::Successful,
            () if self.stages[s].lost_upstream => Stand::Failed,
            () => Stand::Cancelled,
        })
    }

    pub(super) fn make_lost_again(&mut self) -> bool {
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
