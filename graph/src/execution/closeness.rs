//! Which of a stage's ready tasks an executor is given: those first that read, task by task, what lies there already.
//!
//! Which executor is given how many is not decided here; only which ones go, so nothing waits and nothing is passed over for
//! the sake of closeness. A stage that reads nothing task by task asks nothing.

use super::ExecutionGraph;
use crate::plan::Edge;

/// How many ready tasks are looked at for each assignment, lowest first: some microseconds' worth, and with some hundreds of
/// executors mostly enough to find one that lies close.
const LOOK_MAX: usize = 1024;

impl ExecutionGraph {
    /// Up to `count` ready tasks of a stage that read, task by task, an output on that executor, in any of its lives: its disk
    /// outlives them.
    pub(super) fn close_to(&self, stage: u32, executor: &str, count: u32) -> Vec<u32> {
        let mut close = Vec::new();
        let above = &self.stage_plan(stage).upstreams;
        let ready = &self.stages[stage as usize].ready;
        // When all go anyway, there is nothing to choose.
        if ready.len() <= count || above.iter().all(|upstream| upstream.edge != Edge::Each) {
            return close;
        }
        let lives = self.lives(executor, u64::MAX);
        let lies_there = |upstream: u32, index: u32| {
            let task = &self.stages[upstream as usize].tasks[index as usize];
            task.has_output() && task.on().is_some_and(|on| lives.contains(&on))
        };
        let mut next = ready.first();
        for _ in 0..LOOK_MAX {
            let Some(index) = next.filter(|_| close.len() < count as usize) else { break };
            let each = above.iter().filter(|upstream| upstream.edge == Edge::Each);
            if each.into_iter().any(|upstream| lies_there(upstream.stage.0, index)) {
                close.push(index);
            }
            next = ready.at_or_after(index + 1);
        }
        close
    }
}
