//! What a job took, for the groups that it is in.
//!
//! Added up when it is asked for, from the tasks alone: a job's end asks, and nothing else does. So there is nothing to be kept up
//! to date, or stored: a result that is taken back, by a retry or with a lost output, is gone from the answer as it is from its task.

use super::ExecutionGraph;
use crate::groups::Spent;

impl ExecutionGraph {
    /// What the attempts that count took: the accepted one of each successful task, and the last one of each failed task. Costs as much
    /// as there are tasks.
    #[must_use]
    pub fn spent(&self) -> Spent {
        let mut spent = Spent::default();
        for (stage, plan) in self.stages.iter().zip(&self.plan.stages) {
            let times = stage.tasks.iter().map(|task| u64::from(task.ran_ms()));
            spent.add(&Spent::of(times.fold(0, u64::saturating_add), &plan.resources));
        }
        spent
    }
}
