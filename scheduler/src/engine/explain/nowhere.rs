//! Why tasks can run on none of the executors that are there, however idle these were, in the user's terms.

use muster_graph::ids::StageIndex;
use muster_graph::plan::Plan;

use super::words::wants;
use crate::engine::{Engine, Executor};
use crate::placement;

impl Engine {
    /// Why tasks of the stage can run nowhere. `None`: they can.
    pub(in crate::engine) fn nowhere(&self, plan: &Plan, stage: StageIndex) -> Option<String> {
        let there: Vec<&Executor> = self.executors().filter(|executor| executor.is_reachable()).collect();
        if there.is_empty() {
            return Some("no executor is there".to_owned());
        }
        let placing = plan.placing(stage);
        let admitted: Vec<&Executor> =
            there.iter().copied().filter(|executor| placing.admits(&executor.labels)).collect();
        if admitted.is_empty() {
            let rules = placing.require().map(|(label, rule)| {
                let met = |executor: &&&Executor| rule.is_met_by(executor.labels.get(label).map(String::as_str));
                let met = there.iter().filter(met).count();
                format!("{label} {rule} ({met} of {})", there.len())
            });
            return Some(format!("no executor has the labels required: {}", rules.collect::<Vec<_>>().join(", ")));
        }
        let wanted = &plan.stages[stage.0 as usize].resources;
        if admitted.iter().any(|executor| placement::fits(wanted, &executor.total) > 0) {
            return None;
        }
        let who = if admitted.len() < there.len() { "no executor with the labels required" } else { "no executor" };
        Some(format!("{who} is large enough: a task wants {}", wants(wanted)))
    }
}
