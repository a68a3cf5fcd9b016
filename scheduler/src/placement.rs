//! Which executor gets how many tasks of which stage. A small pure problem: no jobs, no clocks, just demands in the
//! order in which they are owed and executors with what they have left.
//!
//! The order of demands is the caller's policy (priority, then age); [`solve`] never lets a later demand take what an
//! earlier one could have used *now*. Each demand goes to the executor with the most room for it first, so that equal
//! load spreads, and all that one executor takes of a demand is one assignment.
//!
//! What finds no room may wait on an executor, as far as that one's [`Backlog`] allows: never while another has room for it,
//! and never where an earlier demand waits for room, which would not come if the backlog were filled again and again.

use muster_graph::spec::Resources;

/// Tasks that want the same.
#[derive(Debug, Clone)]
pub struct Demand<'a> {
    /// Of one task.
    pub resources: &'a Resources,
    /// How many.
    pub count: u32,
    /// What one task will keep busy, in the unit of [`Backlog::work`]. `None`: it is long, or nobody knows.
    pub work: Option<u64>,
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
        let rooms = rooms(offers, |offer| fits(wanted.resources, &offer.free).min(offer.window));
        for (at, count) in spread(rooms, &mut left[demand]) {
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
        for (at, count) in spread(rooms(offers, |offer| offer.room_to_wait(wanted)), left) {
            offers[at].wait(wanted, count);
            assignments.push(Assignment { demand, offer: at, count });
        }
        if *left > 0 {
            let would_fit = |offer: &&mut Offer| fits(wanted.resources, &offer.total) > 0;
            offers.iter_mut().filter(would_fit).for_each(|offer| offer.is_owed = true);
            if offers.iter().all(|offer| offer.is_owed) {
                break;
            }
        }
    }
    assignments
}

/// The offers that have room, most room first; equals in their own order, so that the answer depends on the problem alone.
fn rooms(offers: &[Offer], room: impl Fn(&Offer) -> u32) -> Vec<(u32, usize)> {
    let mut rooms: Vec<(u32, usize)> =
        offers.iter().enumerate().map(|(at, offer)| (room(offer), at)).filter(|(room, _)| *room > 0).collect();
    rooms.sort_by_key(|&(room, at)| (std::cmp::Reverse(room), at));
    rooms
}

/// How many each of the rooms gets. A few tasks spread over the roomiest instead of filling up the first one.
fn spread(rooms: Vec<(u32, usize)>, left: &mut u32) -> Vec<(usize, u32)> {
    let share = left.div_ceil(u32::try_from(rooms.len().max(1)).expect("fewer executors than 2³²")).max(1);
    let mut counts = vec![0; rooms.len()];
    for most in [share, u32::MAX] {
        for ((room, _), count) in rooms.iter().zip(&mut counts) {
            let more = (*left).min(room - *count).min(most);
            *count += more;
            *left -= more;
        }
    }
    rooms.into_iter().zip(counts).filter(|(_, count)| *count > 0).map(|((_, at), count)| (at, count)).collect()
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
        Demand { resources, count, work: None }
    }

    /// Nothing is free; `work` and `count` may wait.
    fn busy(milli: u32, work: u64, count: u32) -> Offer {
        let backlog = Backlog { work, count };
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
        let short = Demand { resources: &one, count: 5, work: Some(10) };
        let got = solve(&[short], &mut offers);
        assert_eq!(got.iter().map(|a| (a.offer, a.count)).collect::<Vec<_>>(), [(1, 2), (0, 3)]);
        assert_eq!(offers[0].backlog, Backlog { work: 70, count: 97 });
    }

    #[test]
    fn what_waits_is_bounded_by_time_by_number_and_by_the_window_and_spread() {
        let one = cpu(1000);
        let short = |count| Demand { resources: &one, count, work: Some(10) };
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
        let short = Demand { resources: &one, count: 5, work: Some(10) };
        let mut offers = [busy(4000, 100, 100), busy(2000, 100, 100)];
        let got = solve(&[demand(&large, 1), short.clone()], &mut offers);
        assert_eq!(got, [Assignment { demand: 1, offer: 1, count: 5 }], "the large one does not fit there anyway");
        assert!(offers[0].is_owed && !offers[1].is_owed);
        let got = solve(&[short, demand(&large, 1)], &mut [busy(4000, 100, 100)]);
        assert_eq!(got.len(), 1, "one that comes later holds nobody up");
    }

    proptest! {
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
