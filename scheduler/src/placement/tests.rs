//! Placement by examples, and on random problems.

mod gathering;

use super::*;
use proptest::prelude::*;

/// Room gathers for nobody.
fn solve(demands: &[Demand<'_>], offers: &mut [Offer]) -> Vec<Assignment> {
    super::solve(demands, offers, &Gathering::NONE)
}

fn cpu(milli: u32) -> Resources {
    Resources { cpu_milli: milli, ..Resources::default() }
}

fn offer(milli: u32) -> Offer {
    Offer {
        free: cpu(milli),
        window: 100,
        total: cpu(milli),
        backlog: Backlog::default(),
        is_owed: false,
        is_doubted: false,
        gathered: None,
        kept: None,
    }
}

fn demand(resources: &Resources, count: u32) -> Demand<'_> {
    Demand { resources, count, work: None, ranks: None, policy: Policy::Spread }
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
    let short = Demand { work: Some(10), ..demand(&one, 5) };
    let got = solve(&[short], &mut offers);
    assert_eq!(got.iter().map(|a| (a.offer, a.count)).collect::<Vec<_>>(), [(1, 2), (0, 3)]);
    assert_eq!(offers[0].backlog, Backlog { work: 70, count: 97 });
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
fn where_it_must_not_go_it_neither_goes_nor_waits_and_nothing_is_owed_to_it() {
    let one = cpu(1000);
    let only_second = [None, Some(0)];
    let picky = Demand { ranks: Some(&only_second), work: Some(10), ..demand(&one, 5) };
    let got = solve(std::slice::from_ref(&picky), &mut [offer(4000), offer(2000)]);
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
