//! Which executor gets how many tasks of which stage. A small pure problem: no jobs, no clocks, just demands in the
//! order in which they are owed and executors with what they have left.
//!
//! The order of demands is the caller's policy (priority, then age); [`solve`] never lets a later demand take what an
//! earlier one could have used *now*. Each demand goes to the executor with the most room for it first, so that equal
//! load spreads, and all that one executor takes of a demand is one assignment.

use muster_graph::spec::Resources;

/// Tasks that want the same.
#[derive(Debug, Clone)]
pub struct Demand<'a> {
    /// Of one task.
    pub resources: &'a Resources,
    /// How many.
    pub count: u32,
}

/// What an executor has left.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Resources not in use.
    pub free: Resources,
    /// How many more attempts may be sent before it has answered; bounds what a hung executor can swallow.
    pub window: u32,
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

/// Puts `wanted` back into `free`, up to `total`.
pub fn give_back(free: &mut Resources, wanted: &Resources, total: &Resources) {
    free.cpu_milli = free.cpu_milli.saturating_add(wanted.cpu_milli).min(total.cpu_milli);
    free.memory_bytes = free.memory_bytes.saturating_add(wanted.memory_bytes).min(total.memory_bytes);
    for (name, &amount) in &wanted.named {
        let most = total.named.get(name).copied().unwrap_or(0);
        if let Some(left) = free.named.get_mut(name) {
            *left = left.saturating_add(amount).min(most);
        }
    }
}

/// Assigns demands, in order, to offers; what was assigned is taken out of the offers.
pub fn solve(demands: &[Demand<'_>], offers: &mut [Offer]) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    let mut open = offers.iter().filter(|offer| offer.window > 0 && offer.free.cpu_milli > 0).count();
    for (demand, wanted) in demands.iter().enumerate() {
        if open == 0 {
            break;
        }
        let mut left = wanted.count;
        let mut rooms: Vec<(u32, usize)> = offers
            .iter()
            .enumerate()
            .map(|(at, offer)| (fits(wanted.resources, &offer.free).min(offer.window), at))
            .filter(|(room, _)| *room > 0)
            .collect();
        // Most room first; equals in their own order, so that the answer depends on the problem alone.
        rooms.sort_by_key(|&(room, at)| (std::cmp::Reverse(room), at));
        // A few tasks spread over the roomiest executors instead of filling up the first one.
        let share = left.div_ceil(u32::try_from(rooms.len().max(1)).expect("fewer executors than 2³²")).max(1);
        for pass in 0..2 {
            for (room, at) in &mut rooms {
                let count = if pass == 0 { left.min(*room).min(share) } else { left.min(*room) };
                if count == 0 {
                    continue;
                }
                let offer = &mut offers[*at];
                take(&mut offer.free, wanted.resources, count);
                offer.window -= count;
                *room -= count;
                left -= count;
                if offer.window == 0 || offer.free.cpu_milli == 0 {
                    open -= 1;
                }
                match assignments.iter_mut().rev().find(|a: &&mut Assignment| a.demand == demand && a.offer == *at) {
                    Some(same) => same.count += count,
                    None => assignments.push(Assignment { demand, offer: *at, count }),
                }
            }
        }
    }
    assignments
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cpu(milli: u32) -> Resources {
        Resources { cpu_milli: milli, ..Resources::default() }
    }

    fn offer(milli: u32) -> Offer {
        Offer { free: cpu(milli), window: 100 }
    }

    #[test]
    fn few_tasks_spread_and_many_fill_up() {
        let one = cpu(1000);
        let mut offers = [offer(4000), offer(4000)];
        let few = solve(&[Demand { resources: &one, count: 2 }], &mut offers);
        assert_eq!(few.iter().map(|a| (a.offer, a.count)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
        let rest = solve(&[Demand { resources: &one, count: 100 }], &mut offers);
        assert_eq!(rest.iter().map(|a| a.count).sum::<u32>(), 6);
    }

    #[test]
    fn an_earlier_demand_is_served_first() {
        let (big, small) = (cpu(3000), cpu(1000));
        let mut offers = [offer(4000)];
        let got = solve(&[Demand { resources: &big, count: 1 }, Demand { resources: &small, count: 9 }], &mut offers);
        assert_eq!(got, [Assignment { demand: 0, offer: 0, count: 1 }, Assignment { demand: 1, offer: 0, count: 1 }]);
    }

    #[test]
    fn named_resources_must_be_there() {
        let mut gpu = cpu(100);
        gpu.named.insert("gpu".to_owned(), 1);
        let mut offers = [offer(4000)];
        assert_eq!(solve(&[Demand { resources: &gpu, count: 1 }], &mut offers), []);
        offers[0].free.named.insert("gpu".to_owned(), 2);
        assert_eq!(solve(&[Demand { resources: &gpu, count: 3 }], &mut offers)[0].count, 2);
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
                .map(|(resources, (_, count))| Demand { resources, count: *count })
                .collect();
            let before: Vec<Offer> =
                frees.iter().map(|(half, window)| Offer { free: cpu(half * 500), window: *window }).collect();
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
