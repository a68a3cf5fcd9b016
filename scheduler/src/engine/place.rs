//! Ready tasks to free resources: states the present as a [`placement`] problem, and carries the answer out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use muster_graph::execution::{Effect, Event};
use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::Resources;

use super::{Engine, Executor};
use crate::options::LAUNCH_WINDOW;
use crate::placement::{self, Backlog, Demand, Offer};

/// Demands stated as one problem, or a few more: all stages of a job are in one round. Whoever comes first in the order
/// is in an earlier round.
const DEMANDS_PER_ROUND: usize = 512;

/// So many tasks of a stage wait to be placed.
pub(super) type Wanted = (JobId, StageIndex, u32);

/// Tasks for an executor.
struct Assigned {
    stage: StageIndex,
    count: u32,
    resources: Arc<Resources>,
    /// See [`Demand::work`].
    work: Option<u64>,
}

/// Where in the order of what is owed a round of demands ended.
pub(super) type Place = (Reverse<i32>, JobId);

/// Why an executor takes nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// As many launches as may be are on their way to it.
    Window,
    /// It would not hear of them.
    Unheard,
    /// It takes no new work.
    Draining,
    /// It refused some for lack of room a moment ago.
    Refused,
    /// Nothing of it is free, and nothing may wait there.
    Full,
}

impl Executor {
    /// What can be given to it now.
    pub(super) fn offer(&self, is_owed: bool, schedulers: u32, now: Millis) -> Result<Offer, Closed> {
        let window = LAUNCH_WINDOW.saturating_sub(self.unanswered);
        if !self.hears() {
            return Err(Closed::Unheard);
        } else if self.draining {
            return Err(Closed::Draining);
        } else if self.full_until > now {
            return Err(Closed::Refused);
        } else if window == 0 {
            return Err(Closed::Window);
        }
        let backlog = if is_owed { Backlog::default() } else { self.backlog(schedulers, now) };
        let free = self.free();
        if free.cpu_milli == 0 && backlog == Backlog::default() {
            return Err(Closed::Full);
        }
        Ok(Offer { free, window, total: self.total.clone(), backlog, is_owed })
    }
}

impl Engine {
    pub(super) fn place(&mut self, now: Millis) {
        let mut wanted: Vec<Wanted> = Vec::with_capacity(DEMANDS_PER_ROUND);
        // Where the last round ended. Demands that fit nowhere must not keep those behind them from being looked at.
        let mut after = None;
        let mut owed = BTreeSet::new();
        loop {
            after = self.next_round(after, &mut wanted);
            if wanted.is_empty() || !self.place_round(&wanted, &mut owed, now) {
                return;
            }
        }
    }

    /// The next demands in the order in which they are owed. Answers where they end.
    pub(super) fn next_round(&self, mut after: Option<Place>, wanted: &mut Vec<Wanted>) -> Option<Place> {
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
        after
    }

    /// The same, as placement wants it.
    pub(super) fn demands<'a>(&'a self, wanted: &[Wanted], now: Millis) -> Vec<Demand<'a>> {
        let demand = |(id, stage, count): &Wanted| {
            let job = &self.jobs[id];
            let resources = &job.graph.plan().stages[stage.0 as usize].resources;
            Demand { resources, count: *count, work: job.pace.work(*stage, resources, now) }
        };
        wanted.iter().map(demand).collect()
    }

    /// Places what fits of some demands. False: no executor takes anything more. `owed`: executors that somebody before
    /// these waits for.
    fn place_round(&mut self, wanted: &[Wanted], owed: &mut BTreeSet<String>, now: Millis) -> bool {
        let schedulers = self.schedulers_sharing();
        let mut ids = Vec::new();
        let mut offers = Vec::new();
        for (id, executor) in &self.executors {
            if let Ok(offer) = executor.offer(owed.contains(id), schedulers, now) {
                ids.push(id.clone());
                offers.push(offer);
            }
        }
        if offers.is_empty() {
            return false;
        }
        let demands = self.demands(wanted, now);
        let assignments = placement::solve(&demands, &mut offers);
        let works: Vec<Option<u64>> = demands.iter().map(|demand| demand.work).collect();
        owed.extend(ids.iter().zip(&offers).filter(|(_, offer)| offer.is_owed).map(|(id, _)| id.clone()));
        let mut shared: BTreeMap<usize, Arc<Resources>> = BTreeMap::new();
        for assignment in assignments {
            let (id, stage, _) = wanted[assignment.demand];
            let resources =
                Arc::clone(shared.entry(assignment.demand).or_insert_with(|| {
                    Arc::new(self.jobs[&id].graph.plan().stages[stage.0 as usize].resources.clone())
                }));
            let what = Assigned { stage, count: assignment.count, resources, work: works[assignment.demand] };
            self.assign(id, &what, &ids[assignment.offer], now);
        }
        true
    }

    fn assign(&mut self, id: JobId, what: &Assigned, executor: &str, now: Millis) {
        let entry = self.executors.get_mut(executor).expect("offers come from the executors known");
        let on = entry.key.clone();
        let job = self.jobs.get_mut(&id).expect("demands come from the jobs owned");
        let before = job.waiting.effects.len();
        job.apply(Event::Assigned { stage: what.stage, on, count: what.count }, now);
        // What is booked is what the graph says was assigned, not what was asked of it.
        for effect in &job.waiting.effects[before..] {
            if let Effect::Launch { task, attempt, .. } = effect {
                entry.book((id, *task, *attempt), &what.resources, what.work);
            }
        }
        self.dirty.insert(id);
        self.refresh(id);
    }
}
