//! Room for what finds none because it is large: executors kept for it, where it gathers ([`super`], `placement.md`).
//!
//! A demand that fits nowhere now would starve: each core that becomes free would go to a later one that wants less. So of some
//! executors on which it could run as much as one of its tasks needs is kept out of what later demands see. Kept is one task's
//! need and not the whole executor: what is free beyond it would not help, and is anybody's.
//!
//! **Invariant:** where room gathers for a demand, nothing that is placed later delays it: of each resource later ones get only
//! what is beyond the need, so all that ends there counts towards it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use muster_graph::ids::Millis;
use muster_graph::spec::Resources;

use super::{Demand, Offer, fits, give};

/// One that room gathers on already stays, unless it gathers elsewhere in this part of the time.
const SOONER_BY: u64 = 2;
/// Demands that may choose in one solution: each looks at what runs on all offers that are open to it.
const CHOOSERS_MAX: usize = 4;

/// Something that runs on an executor.
#[derive(Debug, Clone)]
pub struct End {
    /// How much longer it will, as far as anybody can tell.
    pub after: Millis,
    /// What it has.
    pub frees: Arc<Resources>,
}

/// Where room may gather.
pub struct Gathering<'a> {
    /// Executors that may be kept, for all demands together: what is kept stands idle.
    pub most: usize,
    /// Whether one may be chosen now. Otherwise only those stay on which it gathers already.
    pub chooses: bool,
    /// What runs on an offer, by its position. Asked when one is chosen, and not otherwise.
    pub ends: &'a dyn Fn(usize) -> Vec<End>,
}

impl Gathering<'_> {
    /// Nothing is kept for anybody.
    pub const NONE: Gathering<'static> = Gathering { most: 0, chooses: false, ends: &|_| Vec::new() };
}

/// Room has gathered on an offer before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gathered {
    /// For which demand, by its position. `None`: for one that is none of these.
    pub by: Option<usize>,
    /// For so long that it is time to look whether it gathers sooner elsewhere.
    pub may_move: bool,
}

/// What is kept of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// For a task of which demand, by its position. `None`: of one that was before all of these.
    pub by: Option<usize>,
    /// What is free of what it needs.
    pub free: Resources,
}

impl Offer {
    /// Keeps as much as is free of what a task needs.
    pub fn keep(&mut self, by: Option<usize>, need: &Resources) {
        let part = |free: &mut u32, need: u32| {
            let kept = need.min(*free);
            *free -= kept;
            kept
        };
        let cpu_milli = part(&mut self.free.cpu_milli, need.cpu_milli);
        let memory_bytes = need.memory_bytes.min(self.free.memory_bytes);
        self.free.memory_bytes -= memory_bytes;
        let wanted = need.named.iter().filter(|(_, amount)| **amount > 0);
        let named = wanted.filter_map(|(name, need)| Some((name.clone(), part(self.free.named.get_mut(name)?, *need))));
        let free = Resources { cpu_milli, memory_bytes, named: named.collect() };
        self.kept = Some(Kept { by, free });
    }

    /// Nothing is kept of it any more.
    pub fn give_up(&mut self) {
        if let Some(kept) = self.kept.take() {
            give(&mut self.free, &kept.free);
        }
    }

    /// Whether such a task would run here now if nothing were kept for others.
    #[must_use]
    pub fn has_room_but_for_what_is_kept(&self, wanted: &Resources) -> bool {
        let mut all = self.free.clone();
        self.kept.iter().for_each(|kept| give(&mut all, &kept.free));
        self.kept.is_some() && self.window > 0 && fits(wanted, &self.free) == 0 && fits(wanted, &all) > 0
    }

    pub(super) fn is_kept_for(&self, demand: usize) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.by == Some(demand))
    }
}

/// What is kept in one solution.
pub(super) struct Keeping<'a> {
    gathering: &'a Gathering<'a>,
    /// Offers that may be kept yet.
    most: usize,
    /// Demands that may choose yet.
    choosers: usize,
    /// Offers where the end of one task makes room for an earlier demand: what becomes free there is not for later ones.
    awaited: BTreeSet<usize>,
}

impl<'a> Keeping<'a> {
    pub(super) fn new(gathering: &'a Gathering<'a>) -> Self {
        Self { gathering, most: gathering.most, choosers: CHOOSERS_MAX, awaited: BTreeSet::new() }
    }

    /// Whether another demand may choose.
    pub(super) fn chooses(&self) -> bool {
        self.gathering.chooses && self.most > 0 && self.choosers > 0
    }

    /// Keeps offers for those tasks of a demand that found no room, so many.
    pub(super) fn keep(&mut self, offers: &mut [Offer], (demand, wanted): (usize, &Demand<'_>), left: u32) {
        let most = self.most.min(left as usize);
        let could_run = |at: &usize| {
            let offer = &offers[*at];
            offer.kept.is_none() && wanted.rank(*at).is_some() && fits(wanted.resources, &offer.total) > 0
        };
        let looks = self.chooses();
        let stays = |at: usize| {
            let gathered = offers[at].gathered.filter(|known| known.by == Some(demand));
            gathered.is_some_and(|known| !(looks && known.may_move))
        };
        let could: Vec<usize> = (0..offers.len()).filter(could_run).collect();
        let mut chosen: Vec<usize> = could.iter().copied().filter(|at| stays(*at)).collect();
        if chosen.len() > most {
            chosen.sort_by_key(|at| (missing(wanted.resources, &offers[*at]), *at));
        } else if looks && chosen.len() < most {
            let is_open = |at: &usize| {
                let offer = &offers[*at];
                let has_some = offer.window > 0 && offer.free.cpu_milli > 0;
                has_some && !stays(*at) && fits(wanted.resources, &offer.free) == 0 && !self.awaited.contains(at)
            };
            let open: Vec<usize> = could.into_iter().filter(is_open).collect();
            self.choosers -= usize::from(!open.is_empty());
            let mut others = Vec::new();
            for at in open {
                let offer = &offers[at];
                let Some(mut wait) = wait(wanted.resources, &offer.free, (self.gathering.ends)(at)) else {
                    self.awaited.insert(at);
                    continue;
                };
                if offer.gathered.is_some_and(|known| known.by == Some(demand)) {
                    wait /= SOONER_BY;
                }
                others.push((wait, missing(wanted.resources, offer), Reverse(wanted.rank(at)), at));
            }
            others.sort_unstable();
            // What has gathered is not wasted because another one is first now: it may take it over, and not choose instead of it.
            let is_others = |at: usize| {
                let offer = &offers[at];
                offer.kept.is_none() && offer.gathered.is_some_and(|known| known.by != Some(demand) && !known.may_move)
            };
            let theirs = (0..offers.len()).filter(|at| is_others(*at)).count();
            let mut may_begin = self.most.saturating_sub(theirs + chosen.len());
            for (.., at) in others {
                if !is_others(at) {
                    if may_begin == 0 {
                        continue;
                    }
                    may_begin -= 1;
                }
                chosen.push(at);
            }
        }
        chosen.truncate(most);
        chosen.iter().for_each(|at| offers[*at].keep(Some(demand), wanted.resources));
        self.most -= chosen.len();
    }
}

/// In how long so much is free if nothing more begins there; the longest time if nobody knows. `None`: it need not gather, as
/// the end of one task makes room for it no later.
fn wait(need: &Resources, free: &Resources, mut ends: Vec<End>) -> Option<Millis> {
    ends.sort_by_key(|end| end.after);
    let by_one = ends.iter().find(|end| fits(need, &end.frees) > 0).map(|end| end.after);
    let mut free = free.clone();
    let together = ends.iter().find_map(|end| {
        give(&mut free, &end.frees);
        (fits(need, &free) > 0).then_some(end.after)
    });
    match (together, by_one) {
        (together, Some(one)) if together.is_none_or(|together| one <= together) => None,
        (together, _) => Some(together.unwrap_or(Millis::MAX)),
    }
}

/// How much is missing of what a task needs, in thousandths of the executor: of what most of is missing.
fn missing(need: &Resources, offer: &Offer) -> u64 {
    let part = |need: u64, free: u64, total: u64| need.saturating_sub(free).saturating_mul(1000) / total.max(1);
    let (free, total) = (&offer.free, &offer.total);
    let of = |named: &Resources, name: &str| named.named.get(name).copied().map_or(0, u64::from);
    let named = need.named.iter().map(|(name, amount)| part(u64::from(*amount), of(free, name), of(total, name)));
    let cpu = part(need.cpu_milli.into(), free.cpu_milli.into(), total.cpu_milli.into());
    let memory = part(need.memory_bytes, free.memory_bytes, total.memory_bytes);
    named.chain([cpu, memory]).max().unwrap_or(0)
}
