//! Ready tasks to free resources: states the present as a [`placement`] problem, and carries the answer out.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use muster_graph::execution::{Effect, Event};
use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::Resources;

use super::Engine;
use crate::options::LAUNCH_WINDOW;
use crate::placement::{self, Demand, Offer};

/// Demands stated as one problem, or a few more: all stages of a job are in one round. Whoever comes first in the order
/// is in an earlier round.
const DEMANDS_PER_ROUND: usize = 512;

impl Engine {
    pub(super) fn place(&mut self, now: Millis) {
        let mut wanted: Vec<(JobId, StageIndex, u32)> = Vec::with_capacity(DEMANDS_PER_ROUND);
        // Where the last round ended. Demands that fit nowhere must not keep those behind them from being looked at.
        let mut after = None;
        loop {
            wanted.clear();
            for place in self.ready.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)) {
                if wanted.len() >= DEMANDS_PER_ROUND {
                    break;
                }
                let job = &self.jobs[&place.1];
                if !job.is_full() {
                    wanted.extend(job.graph.ready().map(|ready| (place.1, ready.stage, ready.count)));
                }
                after = Some(*place);
            }
            if wanted.is_empty() || !self.place_round(&wanted, now) {
                return;
            }
        }
    }

    /// Places what fits of some demands. False: no executor takes anything more.
    fn place_round(&mut self, wanted: &[(JobId, StageIndex, u32)], now: Millis) -> bool {
        let mut ids = Vec::new();
        let mut offers = Vec::new();
        for (id, executor) in &self.executors {
            let window = LAUNCH_WINDOW.saturating_sub(executor.unanswered);
            if window > 0 && executor.free.cpu_milli > 0 && executor.takes_work(now) {
                ids.push(id.clone());
                offers.push(Offer { free: executor.free.clone(), window });
            }
        }
        if offers.is_empty() {
            return false;
        }
        let demands: Vec<Demand<'_>> = wanted
            .iter()
            .map(|(id, stage, count)| Demand {
                resources: &self.jobs[id].graph.plan().stages[stage.0 as usize].resources,
                count: *count,
            })
            .collect();
        let assignments = placement::solve(&demands, &mut offers);
        let mut shared: BTreeMap<usize, Arc<Resources>> = BTreeMap::new();
        for assignment in assignments {
            let (id, stage, _) = wanted[assignment.demand];
            let resources =
                Arc::clone(shared.entry(assignment.demand).or_insert_with(|| {
                    Arc::new(self.jobs[&id].graph.plan().stages[stage.0 as usize].resources.clone())
                }));
            self.assign(id, stage, &ids[assignment.offer], assignment.count, &resources, now);
        }
        true
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
                entry.book((id, *task, *attempt), resources);
            }
        }
        self.dirty.insert(id);
        self.refresh(id);
    }
}
