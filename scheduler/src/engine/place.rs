//! Ready tasks to free resources: states the present as a [`placement`] problem, and carries the answer out.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_graph::execution::{Effect, Event};
use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::plan::StagePlan;
use muster_graph::spec::{Placement, Placing, Resources};

use super::gathering::Places;
use super::turns::{Round, Wanted};
use super::{Engine, Executor, Job};
use crate::options::LAUNCH_WINDOW;
use crate::placement::{self, Backlog, Demand, Gathering, Offer};

/// Kinds of demand that are remembered to have found no more room: more than a cluster mostly has, and few enough to be looked
/// through for each demand.
const SHORT_KINDS_MAX: usize = 64;

/// What demands wanted of which some found no more room since placing began. Whoever wants the same later finds none either,
/// since room only shrinks meanwhile: so ten thousand jobs that wait for one label cost no more than one of them.
#[derive(Default)]
struct Short(Vec<Kind>);

struct Kind {
    job: Placement,
    stage: Placement,
    resources: Resources,
    work: Option<u64>,
}

impl Short {
    fn has(&self, job: &Job, stage: StageIndex, now: Millis) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let plan = job.graph.plan();
        let resources = &plan.stages[stage.0 as usize].resources;
        let (placing, work) = (plan.placing(stage), job.pace.work(stage, resources, now));
        let same = |kind: &Kind| {
            kind.work == work && kind.resources == *resources && Placing::of(&kind.job, &kind.stage) == placing
        };
        self.0.iter().any(same)
    }

    fn add(&mut self, job: &Job, stage: StageIndex, now: Millis) {
        if self.0.len() >= SHORT_KINDS_MAX || self.has(job, stage, now) {
            return;
        }
        let plan = job.graph.plan();
        let StagePlan { placement, resources, .. } = &plan.stages[stage.0 as usize];
        self.0.push(Kind {
            job: plan.placement.clone(),
            stage: placement.clone(),
            resources: resources.clone(),
            work: job.pace.work(stage, resources, now),
        });
    }
}

/// What the rounds of one placing leave to those that follow.
#[derive(Default)]
struct SoFar {
    /// Executors that somebody before waits for.
    owed: BTreeSet<String>,
    /// What found no more room.
    short: Short,
    /// Where room had gathered when it began.
    before: Places,
}

/// For what demands say of labels, how much they like each executor of a round.
pub(super) type Ranks<'a> = HashMap<Placing<'a>, Vec<Option<u32>>>;

/// Tasks for an executor.
struct Assigned {
    stage: StageIndex,
    count: u32,
    resources: Arc<Resources>,
    /// See [`Demand::work`].
    work: Option<u64>,
}

/// Why an executor takes nothing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// As many launches as may be are on their way to it.
    Window,
    /// It would not hear of them.
    Unheard,
    /// It takes no new work.
    Draining,
    /// It failed everything, and has something to try or is to wait before the next try.
    Quarantined,
    /// It refused some for lack of room a moment ago.
    Refused,
    /// Nothing of it is free, and nothing may wait there.
    Full,
}

impl Executor {
    /// What can be given to it now.
    pub(super) fn offer(&self, is_owed: bool, schedulers: u32, now: Millis) -> Result<Offer, Closed> {
        let mut window = LAUNCH_WINDOW.saturating_sub(self.unanswered);
        if !self.hears() {
            return Err(Closed::Unheard);
        } else if self.draining {
            return Err(Closed::Draining);
        } else if self.full_until > now {
            return Err(Closed::Refused);
        } else if window == 0 {
            return Err(Closed::Window);
        }
        let mut backlog = if is_owed { Backlog::default() } else { self.backlog(schedulers, now) };
        if let Some(quarantine) = self.quarantine() {
            if !quarantine.may_try(now) {
                return Err(Closed::Quarantined);
            }
            (window, backlog) = (1, Backlog::default());
        }
        let free = self.free();
        if free.cpu_milli == 0 && backlog == Backlog::default() {
            return Err(Closed::Full);
        }
        Ok(Offer { is_owed, ..self.offer_of(window, backlog) })
    }

    pub(super) fn offer_of(&self, window: u32, backlog: Backlog) -> Offer {
        let (free, total) = (self.free(), self.total.clone());
        let is_doubted = self.is_doubted();
        Offer { free, window, total, backlog, is_owed: false, is_doubted, gathered: None, kept: None }
    }
}

impl Engine {
    pub(super) fn place(&mut self, now: Millis) {
        let mut turns = self.turns();
        let mut so_far = SoFar { before: std::mem::take(&mut self.room_gathers.places), ..SoFar::default() };
        let holders: BTreeSet<_> = so_far.before.values().map(|place| place.by).collect();
        // One for which room gathers has more to say than that it finds none.
        let counts =
            |short: &Short, job: &Job, stage| !short.has(job, stage, now) || holders.contains(&(job.id, stage));
        while let Some(round) = self.next_round(&mut turns, now, |job, stage| counts(&so_far.short, job, stage)) {
            match self.place_round(&round, &mut so_far, now) {
                Some(left) => turns.found_no_room(&round, &left),
                None => return,
            }
        }
    }

    /// How much demands like each executor, by what they say of labels. Those that say the same share an answer, of whichever
    /// job; most say nothing, and ask nothing.
    pub(super) fn ranks(&self, wanted: &[Wanted], labels: &[&BTreeMap<String, String>]) -> Ranks<'_> {
        let mut ranks = Ranks::new();
        for (id, stage, _) in wanted {
            let placing = self.jobs[id].graph.plan().placing(*stage);
            if !placing.is_indifferent() {
                ranks.entry(placing).or_insert_with(|| labels.iter().map(|labels| placing.rank(labels)).collect());
            }
        }
        ranks
    }

    /// The same, as placement wants it.
    pub(super) fn demands<'a>(&'a self, wanted: &[Wanted], ranks: &'a Ranks<'_>, now: Millis) -> Vec<Demand<'a>> {
        let demand = |(id, stage, count): &Wanted| {
            let job = &self.jobs[id];
            let resources = &job.graph.plan().stages[stage.0 as usize].resources;
            let placing = job.graph.plan().placing(*stage);
            Demand {
                resources,
                count: *count,
                work: job.pace.work(*stage, resources, now),
                ranks: if ranks.is_empty() { None } else { ranks.get(&placing).map(Vec::as_slice) },
                policy: placing.policy(),
            }
        };
        wanted.iter().map(demand).collect()
    }

    /// Places what fits of some demands, and says how many tasks of each found no room. `None`: no executor takes anything more.
    fn place_round(&mut self, round: &Round, so_far: &mut SoFar, now: Millis) -> Option<Vec<u32>> {
        let SoFar { owed, short, before } = so_far;
        let wanted = round.wanted.as_slice();
        let schedulers = self.schedulers_sharing();
        let kept = &self.room_gathers.places;
        let gathered = self.gathered(before, wanted, now);
        let mut ids = Vec::new();
        let mut labels = Vec::new();
        let mut offers = Vec::new();
        for (id, executor) in &self.executors {
            let offer = executor.offer(owed.contains(id), schedulers, now);
            let has_gathered = before.contains_key(id);
            if let Ok(mut offer) = executor.offer_beside(offer, kept.get(id), has_gathered) {
                offer.gathered = gathered.get(id).copied();
                ids.push(id.clone());
                labels.push(&executor.labels);
                offers.push(offer);
            }
        }
        if offers.is_empty() {
            return None;
        }
        let ranks = self.ranks(wanted, &labels);
        let demands = self.demands(wanted, &ranks, now);
        let has_chosen = Cell::new(false);
        let ends = |at: usize| {
            has_chosen.set(true);
            self.executors.get(&ids[at]).map_or_else(Vec::new, |executor| self.ends(executor, now))
        };
        let most = self.may_keep().saturating_sub(kept.len());
        let gathering = Gathering { most, chooses: self.may_choose(now), ends: &ends };
        let assignments = placement::solve(&demands, &mut offers, &gathering);
        let mut left: Vec<u32> = demands.iter().map(|demand| demand.count).collect();
        assignments.iter().for_each(|assignment| left[assignment.demand] -= assignment.count);
        for ((id, stage, _), _) in wanted.iter().zip(&left).filter(|(_, left)| **left > 0) {
            short.add(&self.jobs[id], *stage, now);
        }
        let works: Vec<Option<u64>> = demands.iter().map(|demand| demand.work).collect();
        owed.extend(ids.iter().zip(&offers).filter(|(_, offer)| offer.is_owed).map(|(id, _)| id.clone()));
        let for_whom = |(executor, offer): (&String, &Offer)| {
            let (id, stage, _) = wanted[offer.kept.as_ref()?.by?];
            Some((executor.clone(), id, stage))
        };
        let kept = ids.iter().zip(&offers).filter_map(for_whom).collect();
        self.keep(kept, before, has_chosen.get(), now);
        let mut shared: BTreeMap<usize, Arc<Resources>> = BTreeMap::new();
        for assignment in assignments {
            let (id, stage, _) = wanted[assignment.demand];
            let resources =
                Arc::clone(shared.entry(assignment.demand).or_insert_with(|| {
                    Arc::new(self.jobs[&id].graph.plan().stages[stage.0 as usize].resources.clone())
                }));
            let what = Assigned { stage, count: assignment.count, resources, work: works[assignment.demand] };
            self.assign(id, &what, &ids[assignment.offer], now);
            self.queues.served(&round.namespace);
        }
        Some(left)
    }

    fn assign(&mut self, id: JobId, what: &Assigned, executor: &str, now: Millis) {
        let schedulers = self.schedulers_sharing();
        let entry = self.executors.get_mut(executor).expect("offers come from the executors known");
        let on = entry.key.clone();
        let job = self.jobs.get_mut(&id).expect("demands come from the jobs owned");
        let before = job.waiting.effects.len();
        let mut nobody_waits = entry.has_work_ahead(schedulers);
        job.apply(Event::Assigned { stage: what.stage, on, count: what.count }, now);
        // What is booked is what the graph says was assigned, not what was asked of it.
        for effect in &job.waiting.effects[before..] {
            if let Effect::Launch { task, attempt, .. } = effect {
                nobody_waits &= entry.book((id, *task, *attempt), &what.resources, what.work);
                entry.tries((id, *task, *attempt), now);
                self.suspects.begins((id, *task), &entry.key, now);
            }
        }
        if nobody_waits {
            self.commit_soon(id, now);
        } else {
            self.commit_at_once(id);
        }
        self.refresh(id);
    }
}
