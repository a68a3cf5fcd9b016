//! Which executor gets how many tasks of which stage. A small pure problem: no jobs, no clocks, just demands in the
//! order in which they are owed and executors with what they have left.
//!
//! The order of demands is the caller's policy; [`solve`] never lets a later demand take what an
//! earlier one could have used *now*. Each demand goes to the executors that suit it best first; among equals its policy
//! decides. All that one executor takes of a demand is one assignment. Where it must not go there is no room for it at all.
//!
//! What finds no room may wait on an executor, as far as that one's [`Backlog`] allows: never while another has room for it,
//! and never where an earlier demand waits for room, which would not come if the backlog were filled again and again.
//!
//! What finds no room because it is large is not starved by what is small: room gathers for it ([`Gathering`]).

mod gathering;

use std::cmp::Reverse;

use muster_graph::spec::{Policy, Resources};

use gathering::Keeping;
pub use gathering::{End, Gathered, Gathering, Kept};

/// Tasks that want the same.
#[derive(Debug, Clone)]
pub struct Demand<'a> {
    /// Of one task.
    pub resources: &'a Resources,
    /// How many.
    pub count: u32,
    /// What one task will keep busy, in the unit of [`Backlog::work`]. `None`: it is long, or nobody knows.
    pub work: Option<u64>,
    /// How well each offer suits, more is better; `None`: it must not go there. No list: all are the same.
    pub ranks: Option<&'a [Option<u32>]>,
    /// How they spread over offers that suit equally well.
    pub policy: Policy,
}

impl Demand<'_> {
    /// How well an offer suits. `None`: it must not go there.
    fn rank(&self, offer: usize) -> Option<u32> {
        self.ranks.map_or(Some(0), |ranks| ranks[offer])
    }
}

/// What may wait on an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Work, in any unit.
    pub work: u64,
    /// Tasks.
    pub count: u32,
}

/// What an executor has left.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Resources not in use.
    pub free: Resources,
    /// How many more attempts may be sent before it has answered; bounds what a hung executor can swallow.
    pub window: u32,
    /// Resources when nothing runs.
    pub total: Resources,
    /// What may wait there until something is free.
    pub backlog: Backlog,
    /// A demand that found no room would fit here: nothing later waits here before it.
    pub is_owed: bool,
    /// What ended there last has failed: of executors that suit equally well it is filled last.
    pub is_doubted: bool,
    /// Room has gathered here before.
    pub gathered: Option<Gathered>,
    /// What is taken out of `free` so that room gathers.
    pub kept: Option<Kept>,
}

impl Offer {
    /// How many such tasks may wait here.
    fn room_to_wait(&self, wanted: &Demand<'_>) -> u32 {
        if self.is_owed || fits(wanted.resources, &self.total) == 0 {
            return 0;
        }
        let in_time = wanted.work.map_or(0, |work| self.backlog.work / work.max(1));
        let in_time = u32::try_from(in_time).unwrap_or(u32::MAX);
        in_time.min(self.backlog.count).min(self.window)
    }

    fn wait(&mut self, wanted: &Demand<'_>, count: u32) {
        let work = wanted.work.unwrap_or(0).saturating_mul(u64::from(count));
        self.backlog.work = self.backlog.work.saturating_sub(work);
        self.backlog.count -= count;
        self.window -= count;
    }
}

/// `count` tasks of demand `demand` go to offer `offer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// Position in the demands.
    pub demand: usize,
    /// Position in the offers.
    pub offer: usize,
    /// How many; at least 1.
    pub count: u32,
}

/// How often `wanted` fits into `free`.
#[must_use]
pub fn fits(wanted: &Resources, free: &Resources) -> u32 {
    let cpu = free.cpu_milli.checked_div(wanted.cpu_milli).unwrap_or(u32::MAX);
    let memory = free.memory_bytes.checked_div(wanted.memory_bytes).unwrap_or(u64::MAX);
    let mut times = cpu.min(u32::try_from(memory).unwrap_or(u32::MAX));
    for (name, &amount) in wanted.named.iter().filter(|(_, amount)| **amount > 0) {
        times = times.min(free.named.get(name).copied().unwrap_or(0) / amount);
    }
    times
}

/// Takes `count` times `wanted` out of `free`.
///
/// # Panics
/// If it does not fit: callers ask [`fits`] first.
pub fn take(free: &mut Resources, wanted: &Resources, count: u32) {
    assert!(fits(wanted, free) >= count, "took {count} × {wanted:?} out of {free:?}");
    free.cpu_milli -= wanted.cpu_milli * count;
    free.memory_bytes -= wanted.memory_bytes * u64::from(count);
    for (name, &amount) in wanted.named.iter().filter(|(_, amount)| **amount > 0) {
        let left = free.named.get_mut(name).expect("it fits, so it is there");
        *left -= amount * count;
    }
}

/// Adds to what is free.
pub fn give(free: &mut Resources, more: &Resources) {
    free.cpu_milli = free.cpu_milli.saturating_add(more.cpu_milli);
    free.memory_bytes = free.memory_bytes.saturating_add(more.memory_bytes);
    for (name, amount) in &more.named {
        let free = free.named.entry(name.clone()).or_default();
        *free = free.saturating_add(*amount);
    }
}

/// Assigns demands, in order, to offers; what was assigned, and what is kept for those that are large, is taken out of the offers.
pub fn solve(demands: &[Demand<'_>], offers: &mut [Offer], gathering: &Gathering<'_>) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    let mut left: Vec<u32> = demands.iter().map(|demand| demand.count).collect();
    let has_room = |offer: &Offer| offer.window > 0 && offer.free.cpu_milli > 0;
    let mut open = offers.iter().filter(|offer| has_room(offer)).count();
    let mut keeping = Keeping::new(gathering);
    // Where room has gathered already it may go on, though nothing can be sent there just now.
    let is_looked_for = |offer: &Offer| offer.kept.is_none() && offer.gathered.is_some_and(|known| known.by.is_some());
    let mut gathered = offers.iter().filter(|offer| is_looked_for(offer)).count();
    for (demand, wanted) in demands.iter().enumerate() {
        if open == 0 && gathered == 0 {
            break;
        }
        let room = |offer: &Offer| fits(wanted.resources, &offer.free).min(offer.window);
        let rooms = if open > 0 { rooms(offers, wanted, room) } else { Vec::new() };
        for (at, count) in fill(rooms, wanted.policy, &mut left[demand]) {
            let offer = &mut offers[at];
            take(&mut offer.free, wanted.resources, count);
            offer.window -= count;
            open -= usize::from(!has_room(offer));
            assignments.push(Assignment { demand, offer: at, count });
        }
        if left[demand] > 0 && (gathered > 0 || open > 0 && keeping.chooses()) {
            keeping.keep(offers, (demand, wanted), left[demand]);
            open = offers.iter().filter(|offer| has_room(offer)).count();
            gathered = offers.iter().filter(|offer| is_looked_for(offer)).count();
        }
    }
    for (demand, wanted) in demands.iter().enumerate() {
        let left = &mut left[demand];
        if *left == 0 {
            continue;
        }
        for (at, count) in fill(rooms(offers, wanted, |offer| offer.room_to_wait(wanted)), wanted.policy, left) {
            offers[at].wait(wanted, count);
            assignments.push(Assignment { demand, offer: at, count });
        }
        let kept = offers.iter_mut().filter(|offer| offer.is_kept_for(demand));
        if *left == 0 {
            kept.for_each(Offer::give_up);
        } else if kept.count() >= *left as usize {
            // It will run where room gathers for it.
            offers.iter_mut().for_each(|offer| offer.is_owed |= offer.is_kept_for(demand));
        } else {
            for (at, offer) in offers.iter_mut().enumerate() {
                offer.is_owed |= wanted.rank(at).is_some() && fits(wanted.resources, &offer.total) > 0;
            }
            if offers.iter().all(|offer| offer.is_owed) {
                break;
            }
        }
    }
    assignments
}

/// Where tasks of a demand can go.
struct Room {
    at: usize,
    /// How well it suits.
    rank: (u32, bool),
    /// How many of them.
    count: u32,
}

/// The offers that have room, in the order in which they are filled; equals in their own order, so that the answer depends on
/// the problem alone.
fn rooms(offers: &[Offer], wanted: &Demand<'_>, count: impl Fn(&Offer) -> u32) -> Vec<Room> {
    let room = |(at, offer): (usize, &Offer)| {
        wanted.rank(at).map(|rank| Room { at, rank: (rank, !offer.is_doubted), count: count(offer) })
    };
    let mut rooms: Vec<Room> = offers.iter().enumerate().filter_map(room).filter(|room| room.count > 0).collect();
    match wanted.policy {
        Policy::Spread => rooms.sort_by_key(|room| (Reverse(room.rank), Reverse(room.count), room.at)),
        Policy::Pack => rooms.sort_by_cached_key(|room| {
            let is_idle = offers[room.at].free == offers[room.at].total;
            (Reverse(room.rank), is_idle, room.count, room.at)
        }),
    }
    rooms
}

/// How many each of the rooms gets: as many as possible go where they suit best.
fn fill(rooms: Vec<Room>, policy: Policy, left: &mut u32) -> Vec<(usize, u32)> {
    let mut counts = vec![0; rooms.len()];
    let mut start = 0;
    for equals in rooms.chunk_by(|a, b| a.rank == b.rank) {
        // A few tasks spread over the roomiest instead of filling up the first one.
        let share = match policy {
            Policy::Spread => left.div_ceil(u32::try_from(equals.len()).expect("fewer executors than 2³²")),
            Policy::Pack => u32::MAX,
        };
        for most in [share, u32::MAX] {
            for (room, given) in equals.iter().zip(&mut counts[start..]) {
                let more = (*left).min(room.count - *given).min(most);
                *given += more;
                *left -= more;
            }
        }
        start += equals.len();
    }
    rooms.iter().zip(counts).filter(|(_, count)| *count > 0).map(|(room, count)| (room.at, count)).collect()
}

#[cfg(test)]
mod tests;
