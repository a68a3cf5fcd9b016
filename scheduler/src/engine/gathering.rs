//! Which executors are kept for large tasks that wait for room there ([`crate::placement`]), from one placing to the next: to
//! change one's mind wastes what has gathered.
//!
//! Room gathers where it will be soonest, by a guess. A guess may be wrong: who has waited for longer than [`PATIENCE_MS`] looks
//! whether it is sooner elsewhere; if so it moves, and stays there for as long again as it has waited in all. So the time between
//! two changes of mind doubles, and sooner or later it is longer than whatever runs there lasts.
//!
//! **Invariant:** nothing here outlives its reason. What is kept is found anew by each placing: of a demand that has got its room or
//! is gone, and of an executor that is, nothing is left. It is in no store: whoever takes a job over begins anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::Resources;

use super::account::Booking;
use super::executors::HeldKey;
use super::place::Closed;
use super::turns::Wanted;
use super::{Engine, Executor};
use crate::placement::{Backlog, End, Gathered, Offer};

/// One executor of so many may be kept, and one in any case: what is kept stands idle.
const KEPT_ONE_OF: usize = 4;
/// To choose takes a look at everything that runs, so it is not done for each placing.
pub(super) const CHOOSE_AGAIN_MS: Millis = 250;
/// Who waits for longer looks whether room gathers sooner elsewhere.
pub(super) const PATIENCE_MS: Millis = 60_000;
/// A task of a stage of which none has ended yet is expected to run for so long, or for as long again as it has.
const UNKNOWN_MS: Millis = 60_000;

/// An executor is kept for a task of this stage.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) by: (JobId, StageIndex),
    /// What the task needs.
    need: Arc<Resources>,
    /// Since when room gathers for it, here or elsewhere.
    since: Millis,
    /// When it may look elsewhere.
    patient_until: Millis,
}

/// By executor.
pub(super) type Places = BTreeMap<String, Place>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct RoomGathers {
    pub(super) places: Places,
    choose_at: Millis,
}

impl Executor {
    /// What it has to offer beside what is `kept` for somebody earlier. One where room has gathered stays in sight while nothing
    /// can be sent to it for a moment.
    pub(super) fn offer_beside(
        &self,
        offer: Result<Offer, Closed>,
        kept: Option<&Place>,
        has_gathered: bool,
    ) -> Result<Offer, Closed> {
        let passes = |why: Closed| matches!(why, Closed::Window | Closed::Refused | Closed::Unheard);
        let mut offer = match offer {
            Err(why) if has_gathered && passes(why) && self.is_reachable() => self.offer_of(0, Backlog::default()),
            other => other?,
        };
        if let Some(earlier) = kept {
            offer.keep(None, &earlier.need);
            if offer.free.cpu_milli == 0 && offer.backlog == Backlog::default() {
                return Err(Closed::Full);
            }
        }
        Ok(offer)
    }
}

impl Engine {
    /// For which demand of these room has gathered, or that it has for another one that still waits, by executor.
    pub(super) fn gathered(&self, before: &Places, wanted: &[Wanted], now: Millis) -> BTreeMap<String, Gathered> {
        if before.is_empty() {
            return BTreeMap::new();
        }
        let demands = wanted.iter().enumerate();
        let positions: HashMap<_, _> = demands.map(|(at, (id, stage, _))| ((*id, *stage), at)).collect();
        let is_done = |(id, stage): &(JobId, StageIndex)| {
            let waits = self.jobs.get(id).is_some_and(|job| job.graph.ready_count(*stage) > 0);
            !waits || self.room_gathers.places.values().any(|place| place.by == (*id, *stage))
        };
        let gathered = |(id, place): (&String, &Place)| {
            let by = positions.get(&place.by).copied();
            let may_move = now >= place.patient_until;
            (by.is_some() || !is_done(&place.by)).then(|| (id.clone(), Gathered { by, may_move }))
        };
        before.iter().filter_map(gathered).collect()
    }

    /// Executors that may be kept, for all who wait together.
    pub(super) fn may_keep(&self) -> usize {
        let in_reach = self.executors.values().filter(|executor| executor.is_reachable()).count();
        (in_reach / KEPT_ONE_OF).max(1)
    }

    pub(super) fn may_choose(&self, now: Millis) -> bool {
        now >= self.room_gathers.choose_at
    }

    /// What runs on an executor, and for how much longer, as far as anybody can tell.
    pub(super) fn ends(&self, executor: &Executor, now: Millis) -> Vec<End> {
        let running = executor.held.iter().filter(|(_, booking)| !booking.waits);
        let end = |(key, booking): (&HeldKey, &Booking)| {
            let (id, task, _) = key;
            let age = if booking.sent { now.saturating_sub(booking.since) } else { 0 };
            let expected = self.jobs.get(id).and_then(|job| job.pace.expected(task.stage));
            let after = match expected {
                Some(expected) if age < expected => expected - age,
                // What has lasted long lasts longer.
                Some(_) => age,
                None => age.max(UNKNOWN_MS),
            };
            End { after, frees: Arc::clone(&booking.resources) }
        };
        running.map(end).collect()
    }

    /// A round of placing keeps executors for these. `has_chosen`: it has looked for the best ones.
    pub(super) fn keep(
        &mut self,
        kept: Vec<(String, JobId, StageIndex)>,
        before: &Places,
        has_chosen: bool,
        now: Millis,
    ) {
        for (executor, id, stage) in kept {
            let by = (id, stage);
            let place = match before.get(&executor).filter(|known| known.by == by) {
                Some(known) => known.clone(),
                None => {
                    // It has moved if one of its stage was due to.
                    let moved = before.values().filter(|known| known.by == by && now >= known.patient_until);
                    let since = moved.map(|known| known.since).min().unwrap_or(now);
                    let need = &self.jobs[&id].graph.plan().stages[stage.0 as usize].resources;
                    let patience = PATIENCE_MS.max(now.saturating_sub(since));
                    Place { by, need: Arc::new(need.clone()), since, patient_until: now + patience }
                }
            };
            self.room_gathers.places.insert(executor, place);
        }
        if has_chosen {
            self.room_gathers.choose_at = now + CHOOSE_AGAIN_MS;
        }
    }
}
