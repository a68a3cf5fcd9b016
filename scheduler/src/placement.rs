//! Which executor gets how many tasks of which stage. A small pure problem: no jobs, no clocks, just demands in the
//! order in which they are owed and executors with what they have left.
//!
//! The order of demands is the caller's policy (priority, then age); [`solve`] never lets a later demand take what an
//! earlier one could have used *now*. Each demand goes to the executors that suit it best first; among equals its policy
//! decides. All that one executor takes of a demand is one assignment. Where it must not go there is no room for it at all.
//!
//! What finds no room may wait on an executor, as far as that one's [`Backlog`] allows: never while another has room for it,
//! and never where an earlier demand waits for room, which would not come if the backlog were filled again and again.

use std::cmp::Reverse;

use muster_graph::spec::{Policy, Resources};

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
    /// One task may wait whatever its work.
    pub foot_in: bool,
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
}

impl Offer {
    /// How many such tasks may wait here.
    fn room_to_wait(&self, wanted: &Demand<'_>) -> u32 {
        if self.is_owed || fits(wanted.resources, &self.total) == 0 {
            return 0;
        }
        let in_time = wanted.work.map_or(0, |work| self.backlog.work / work.max(1));
        let in_time = u32::try_from(in_time).unwrap_or(u32::MAX).max(u32::from(self.backlog.foot_in));
        in_time.min(self.backlog.count).min(self.window)
    }

    fn wait(&mut self, wanted: &Demand<'_>, count: u32) {
        let work = wanted.work.unwrap_or(0).saturating_mul(u64::from(count));
        self.backlog.work = self.backlog.work.saturating_sub(work);
        self.backlog.count -= count;
        self.backlog.foot_in = false;
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

/// Assigns demands, in order, to offers; what was assigned is taken out of the offers.
pub fn solve(demands: &[Demand<'_>], offers: &mut [Offer]) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    let mut left: Vec<u32> = demands.iter().map(|demand| demand.count).collect();
    let has_room = |offer: &Offer| offer.window > 0 && offer.free.cpu_milli > 0;
    let mut open = offers.iter().filter(|offer| has_room(offer)).count();
    for (demand, wanted) in demands.iter().enumerate() {
        if open == 0 {
            break;
        }
        let rooms = rooms(offers, wanted, |offer| fits(wanted.resources, &offer.free).min(offer.window));
        for (at, count) in fill(rooms, wanted.policy, &mut left[demand]) {
            let offer = &mut offers[at];
            take(&mut offer.free, wanted.resources, count);
            offer.window -= count;
            open -= usize::from(!has_room(offer));
            assignments.push(Assignment { demand, offer: at, count });
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
        if *left > 0 {
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
    rank: u32,
    /// How many of them.
    count: u32,
}

/// The offers that have room, in the order in which they are filled; equals in their own order, so that the answer depends on
/// the problem alone.
fn rooms(offers: &[Offer], wanted: &Demand<'_>, count: impl Fn(&Offer) -> u32) -> Vec<Room> {
    let room = |(at, offer)| wanted.rank(at).map(|rank| Room { at, rank, count: count(offer) });
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cpu(milli: u32) -> Resources {
        Resources { cpu_milli: milli, ..Resources::default() }
    }

    fn offer(milli: u32) -> Offer {
        Offer { free: cpu(milli), window: 100, total: cpu(milli), backlog: Backlog::default(), is_owed: false }
    }

    fn demand(resources: &Resources, count: u32) -> Demand<'_> {
        Demand { resources, count, work: None, ranks: None, policy: Policy::Spread }
    }

    /// Nothing is free; `work` and `count` may wait.
    fn busy(milli: u32, work: u64, count: u32) -> Offer {
        let backlog = Backlog { work, count, foot_in: false };
        Offer { free: cpu(0), total: cpu(milli), backlog, ..offer(0) }
    }

    #[test]
    fn few_tasks_spread_and_many_fill_up() {
        let one = cpu(1000);
        let mut offers = [offer(4000), offer(4000)];
        let few = solve(&[demand(&one, 2)], &mut offers);
        assert_eq!(few.iter().map(|a| (a.offer, a.count)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
        let rest = solve(&[demand(&one, 100)], &mut offers);
        assert_eq!(rest.iter().map(|a| a.count).sum::<u32>(), 6);
    }

    #[test]
    fn an_earlier_demand_is_served_first() {
        let (big, small) = (cpu(3000), cpu(1000));
        let mut offers = [offer(4000)];
        let got = solve(&[demand(&big, 1), demand(&small, 9)], &mut offers);
        assert_eq!(got, [Assignment { demand: 0, offer: 0, count: 1 }, Assignment { demand: 1, offer: 0, count: 1 }]);
    }

    #[test]
    fn named_resources_must_be_there() {
        let mut gpu = cpu(100);
        gpu.named.insert("gpu".to_owned(), 1);
        let mut offers = [offer(4000)];
        assert_eq!(solve(&[demand(&gpu, 1)], &mut offers), []);
        offers[0].free.named.insert("gpu".to_owned(), 2);
        assert_eq!(solve(&[demand(&gpu, 3)], &mut offers)[0].count, 2);
    }

    #[test]
    fn nothing_waits_while_there_is_room_for_it() {
        let one = cpu(1000);
        let mut offers = [busy(4000, 100, 100), offer(2000)];
        let short = Demand { work: Some(10), ..demand(&one, 5) };
        let got = solve(&[short], &mut offers);
        assert_eq!(got.iter().map(|a| (a.offer, a.count)).collect::<Vec<_>>(), [(1, 2), (0, 3)]);
        assert_eq!(offers[0].backlog, Backlog { work: 70, count: 97, foot_in: false });
    }

    #[test]
    fn what_waits_is_bounded_by_time_by_number_and_by_the_window_and_spread() {
        let one = cpu(1000);
        let short = |count| Demand { work: Some(10), ..demand(&one, count) };
        assert_eq!(solve(&[short(100)], &mut [busy(4000, 35, 100)])[0].count, 3);
        assert_eq!(solve(&[short(100)], &mut [busy(4000, 1000, 7)])[0].count, 7);
        assert_eq!(solve(&[short(100)], &mut [Offer { window: 2, ..busy(4000, 1000, 100) }])[0].count, 2);
        assert_eq!(solve(&[short(100)], &mut [busy(500, 1000, 100)]), [], "it will never fit");
        let two = solve(&[short(4)], &mut [busy(4000, 1000, 100), busy(4000, 1000, 100)]);
        assert_eq!(two.iter().map(|a| a.count).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn nothing_waits_where_an_earlier_demand_waits_for_room() {
        let (one, large) = (cpu(1000), cpu(4000));
        let short = Demand { work: Some(10), ..demand(&one, 5) };
        let mut offers = [busy(4000, 100, 100), busy(2000, 100, 100)];
        let got = solve(&[demand(&large, 1), short.clone()], &mut offers);
        assert_eq!(got, [Assignment { demand: 1, offer: 1, count: 5 }], "the large one does not fit there anyway");
        assert!(offers[0].is_owed && !offers[1].is_owed);
        let got = solve(&[short, demand(&large, 1)], &mut [busy(4000, 100, 100)]);
        assert_eq!(got.len(), 1, "one that comes later holds nobody up");
    }

    #[test]
    fn a_foot_in_the_door_is_one_task() {
        let one = cpu(1000);
        let mut offers = [busy(4000, 0, 10)];
        offers[0].backlog.foot_in = true;
        assert_eq!(
            solve(&[demand(&one, 5), demand(&one, 5)], &mut offers),
            [Assignment { demand: 0, offer: 0, count: 1 }]
        );
    }

    #[test]
    fn where_it_must_not_go_it_neither_goes_nor_waits_and_nothing_is_owed_to_it() {
        let one = cpu(1000);
        let only_second = [None, Some(0)];
        let picky = Demand { ranks: Some(&only_second), work: Some(10), ..demand(&one, 5) };
        let got = solve(&[picky.clone()], &mut [offer(4000), offer(2000)]);
        assert_eq!(got, [Assignment { demand: 0, offer: 1, count: 2 }]);
        let mut offers = [busy(4000, 1000, 100), busy(4000, 20, 100)];
        assert_eq!(solve(&[picky], &mut offers), [Assignment { demand: 0, offer: 1, count: 2 }]);
        assert!(!offers[0].is_owed && offers[1].is_owed);
    }

    #[test]
    fn what_suits_better_is_filled_first_and_equals_share() {
        let one = cpu(1000);
        let ranks = [Some(0), Some(7), Some(7), None];
        let mut offers = [offer(9000), offer(2000), offer(3000), offer(9000)];
        let got = solve(&[Demand { ranks: Some(&ranks), ..demand(&one, 7) }], &mut offers);
        assert_eq!(got.iter().map(|a| (a.offer, a.count)).collect::<Vec<_>>(), [(2, 3), (1, 2), (0, 2)]);
    }

    #[test]
    fn packing_begins_with_what_is_in_use_and_then_with_the_least_room() {
        let one = cpu(1000);
        let in_use = Offer { free: cpu(5000), ..offer(6000) };
        let mut offers = [offer(4000), offer(2000), in_use];
        let packed = Demand { policy: Policy::Pack, ..demand(&one, 8) };
        let got = solve(&[packed], &mut offers);
        assert_eq!(got.iter().map(|a| (a.offer, a.count)).collect::<Vec<_>>(), [(2, 5), (1, 2), (0, 1)]);
    }

    proptest! {
        #[test]
        fn policies_and_ranks_choose_where_and_never_whether(
            rooms in proptest::collection::vec((0u32..6, 0u32..6, proptest::option::of(0u32..3)), 1..7),
            count in 1u32..20,
            pack in any::<bool>(),
        ) {
            let one = cpu(1000);
            let ranks: Vec<Option<u32>> = rooms.iter().map(|(_, _, rank)| *rank).collect();
            let before: Vec<Offer> = rooms
                .iter()
                .map(|(free, used, _)| Offer { free: cpu(free * 1000), ..offer((free + used) * 1000) })
                .collect();
            let policy = if pack { Policy::Pack } else { Policy::Spread };
            let mut after = before.clone();
            let got = solve(&[Demand { ranks: Some(&ranks), policy, ..demand(&one, count) }], &mut after);
            let mut given = vec![0; rooms.len()];
            for assignment in got {
                given[assignment.offer] += assignment.count;
            }
            let allowed: u32 = rooms.iter().filter(|(_, _, rank)| rank.is_some()).map(|(free, ..)| *free).sum();
            prop_assert_eq!(given.iter().sum::<u32>(), count.min(allowed));
            for (at, (free, used, rank)) in rooms.iter().enumerate() {
                prop_assert!(rank.is_some() || given[at] == 0);
                for (other, (other_free, other_used, other_rank)) in rooms.iter().enumerate() {
                    let (Some(rank), Some(other_rank)) = (rank, other_rank) else { continue };
                    // What is behind `at` gets something only if `at` is full.
                    let is_behind = other_rank < rank
                        || pack
                            && other_rank == rank
                            && (*other_used == 0, *other_free) > (*used == 0, *free);
                    prop_assert!(!is_behind || given[other] == 0 || given[at] == *free, "{at} before {other}: {given:?}");
                    // Of equals that share, none gets more than its share while another has less and room for more.
                    let better = |other: &Option<u32>| other.is_some_and(|other| other > *rank);
                    let taken: u32 = ranks.iter().zip(&given).filter(|(rank, _)| better(rank)).map(|(_, n)| n).sum();
                    let equals = rooms.iter().filter(|(free, _, other)| *free > 0 && *other == Some(*rank)).count();
                    let share = (count - taken).div_ceil(equals.max(1) as u32);
                    let is_short = !pack && rank == other_rank && given[at] < share.min(*free);
                    prop_assert!(!is_short || given[other] <= share, "{at} beside {other}: {given:?}");
                }
            }
        }

        #[test]
        fn nothing_is_given_twice_and_nothing_fitting_is_left(
            wants in proptest::collection::vec((1u32..5, 1u32..9), 0..6),
            frees in proptest::collection::vec((0u32..12, 0u32..20), 0..6),
        ) {
            let resources: Vec<Resources> = wants.iter().map(|(milli, _)| cpu(milli * 500)).collect();
            let demands: Vec<Demand<'_>> = resources
                .iter()
                .zip(&wants)
                .map(|(resources, (_, count))| demand(resources, *count))
                .collect();
            let before: Vec<Offer> =
                frees.iter().map(|(half, window)| Offer { window: *window, ..offer(half * 500) }).collect();
            let mut after = before.clone();
            let got = solve(&demands, &mut after);
            for (at, offer) in before.iter().enumerate() {
                let used: u32 = got
                    .iter()
                    .filter(|a| a.offer == at)
                    .map(|a| demands[a.demand].resources.cpu_milli * a.count)
                    .sum();
                prop_assert_eq!(offer.free.cpu_milli - used, after[at].free.cpu_milli);
            }
            for (at, demand) in demands.iter().enumerate() {
                let given: u32 = got.iter().filter(|a| a.demand == at).map(|a| a.count).sum();
                prop_assert!(given <= demand.count);
                if given < demand.count {
                    let room = after.iter().any(|o| fits(demand.resources, &o.free).min(o.window) > 0);
                    prop_assert!(!room, "a task could still be placed");
                }
            }
        }
    }
}
