//! Ready tasks to free resources: states the present as a [`placement`] problem, and carries the answer out.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_graph::execution::{Effect, Event};
use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::Resources;

use super::Engine;
use crate::options::LAUNCH_WINDOW;
use crate::placement::{self, Demand, Offer};

/// Demands looked at in one round. The rest wait for the next one: whoever is first in the order is among these.
const DEMANDS_PER_ROUND: usize = 512;

impl Engine {
    pub(super) fn place(&mut self, now: Millis) {
        loop {
            let mut ids = Vec::new();
            let mut offers = Vec::new();
            for (id, executor) in &self.executors {
                if executor.takes_work() && executor.free.cpu_milli > 0 {
                    ids.push(id.clone());
                    offers.push(Offer {
                        free: executor.free.clone(),
                        window: LAUNCH_WINDOW.saturating_sub(executor.unanswered),
                    });
                }
            }
            if offers.is_empty() {
                return;
            }
            let wanted: Vec<(JobId, StageIndex, u32)> = self
                .ready
                .iter()
                .filter(|(_, id)| !self.jobs[id].is_full())
                .flat_map(|(_, id)| self.jobs[id].graph.ready().map(|ready| (*id, ready.stage, ready.count)))
                .take(DEMANDS_PER_ROUND)
                .collect();
            let demands: Vec<Demand<'_>> = wanted
                .iter()
                .map(|(id, stage, count)| Demand {
                    resources: &self.jobs[id].graph.plan().stages[stage.0 as usize].resources,
                    count: *count,
                })
                .collect();
            let assignments = placement::solve(&demands, &mut offers);
            if assignments.is_empty() {
                return;
            }
            let full_round = wanted.len() == DEMANDS_PER_ROUND;
            let mut shared: BTreeMap<usize, Arc<Resources>> = BTreeMap::new();
            for assignment in assignments {
                let (id, stage, _) = wanted[assignment.demand];
                let resources = Arc::clone(shared.entry(assignment.demand).or_insert_with(|| {
                    Arc::new(self.jobs[&id].graph.plan().stages[stage.0 as usize].resources.clone())
                }));
                self.assign(id, stage, &ids[assignment.offer], assignment.count, &resources, now);
            }
            if !full_round {
                return;
            }
        }
    }

    fn assign(
        &mut self,
        id: JobId,
        stage: StageIndex,
        executor: &str,
        count: u32,
        resources: &Arc<Resources>,
        now: Millis,
    ) {
        let entry = self.executors.get_mut(executor).expect("offers come from the executors known");
        let on = entry.key.clone();
        let job = self.jobs.get_mut(&id).expect("demands come from the jobs owned");
        let before = job.waiting.effects.len();
        job.apply(Event::Assigned { stage, on, count }, now);
        // What is booked is what the graph says was assigned, not what was asked of it.
        for effect in &job.waiting.effects[before..] {
            if let Effect::Launch { task, attempt, .. } = effect {
                placement::take(&mut entry.free, resources, 1);
                entry.book((id, *task, *attempt), resources);
                entry.unanswered += u32::from(!entry.pull);
            }
        }
        self.dirty.insert(id);
        self.refresh(id);
    }
}
