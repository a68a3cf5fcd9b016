//! Room gathers: for whom, where, how much of it, and that whoever waits for it gets it in time.

use std::cell::Cell;
use std::sync::Arc;

use super::{solve, *};
use crate::placement::solve as gather;

/// Nothing is known of what runs.
fn unknown(_: usize) -> Vec<End> {
    Vec::new()
}

fn gathering(most: usize, ends: &dyn Fn(usize) -> Vec<End>) -> Gathering<'_> {
    Gathering { most, chooses: true, ends }
}

fn partly_free(free: u32, total: u32) -> Offer {
    Offer { free: cpu(free), ..offer(total) }
}

fn end(after: u64, milli: u32) -> End {
    End { after, frees: Arc::new(cpu(milli)) }
}

fn kept(offers: &[Offer]) -> Vec<(usize, Option<usize>, u32)> {
    let all = offers.iter().enumerate();
    all.filter_map(|(at, offer)| offer.kept.as_ref().map(|kept| (at, kept.by, kept.free.cpu_milli))).collect()
}

#[test]
fn what_is_kept_for_a_large_task_is_not_for_later_ones_and_what_is_beyond_it_is() {
    let (large, small) = (Resources { memory_bytes: 8, ..cpu(4000) }, cpu(1000));
    let with_memory = |bytes, offer: Offer| {
        let (free, total) = (offer.free.clone(), offer.total.clone());
        let free = Resources { memory_bytes: bytes, ..free };
        Offer { free, total: Resources { memory_bytes: 8, ..total }, ..offer }
    };
    // Memory is what it waits for on the second: cores beyond its own four are of no use to it.
    let mut offers = [with_memory(8, partly_free(3000, 16_000)), with_memory(5, partly_free(6000, 16_000))];
    let demands = [demand(&large, 2), demand(&small, 99)];
    let got = gather(&demands, &mut offers, &gathering(2, &unknown));
    assert_eq!(got, [Assignment { demand: 1, offer: 1, count: 2 }]);
    assert_eq!(kept(&offers), [(0, Some(0), 3000), (1, Some(0), 4000)]);
    assert_eq!((offers[0].free.cpu_milli, offers[1].free.cpu_milli), (0, 4000 - 4000));
}

#[test]
fn no_more_is_kept_than_there_are_tasks_nor_than_may_be() {
    let large = cpu(4000);
    let offers = || [1000, 3000, 2000, 0].map(|free| partly_free(free, 4000));
    let count = |tasks, most| {
        let mut offers = offers();
        gather(&[demand(&large, tasks)], &mut offers, &gathering(most, &unknown));
        kept(&offers).into_iter().map(|(at, ..)| at).collect::<Vec<_>>()
    };
    assert_eq!(count(1, 9), [1], "where least is missing, if nothing else is known");
    assert_eq!(count(2, 9), [1, 2]);
    assert_eq!(count(9, 9), [0, 1, 2], "nothing can be kept where nothing is free");
    assert_eq!(count(9, 1), [1]);
    assert_eq!(count(9, 0), [0; 0]);
}

#[test]
fn it_gathers_where_it_will_be_soonest() {
    let large = cpu(4000);
    let mut offers = [partly_free(3000, 4000), partly_free(1000, 4000), partly_free(1000, 4000)];
    let ends = |at: usize| {
        [vec![end(90, 1000)], vec![end(10, 1000), end(50, 2000)], vec![end(9, 2000), end(60, 1000)]][at].clone()
    };
    gather(&[demand(&large, 1)], &mut offers, &gathering(1, &ends));
    assert_eq!(kept(&offers), [(1, Some(0), 1000)]);
}

#[test]
fn nothing_is_kept_where_one_end_makes_room_as_soon() {
    let large = cpu(4000);
    let run = |ends: &dyn Fn(usize) -> Vec<End>, first: u32| {
        let mut offers = [partly_free(1000, 8000)];
        let later = cpu(500);
        gather(&[demand(&cpu(first), 1), demand(&later, 9)], &mut offers, &gathering(1, ends));
        kept(&offers).len()
    };
    assert_eq!(run(&|_| vec![end(50, 4000), end(10, 1000)], large.cpu_milli), 0, "a task like itself ends first");
    assert_eq!(run(&|_| vec![end(50, 4000), end(10, 1000), end(20, 2000)], large.cpu_milli), 1, "others end sooner");
    assert_eq!(run(&|_| vec![end(50, 4000)], 4500), 1, "its end is not enough");
}

#[test]
fn it_stays_where_it_gathers_until_it_is_told_to_look_again() {
    let large = cpu(4000);
    let at_first = |may_move| {
        let gathered = Some(Gathered { by: Some(0), may_move });
        [Offer { gathered, ..partly_free(2000, 4000) }, partly_free(3000, 4000)]
    };
    let where_now = |mut offers: [Offer; 2], ends: &dyn Fn(usize) -> Vec<End>, chooses| {
        let asked = Cell::new(0);
        let ends = |at| {
            asked.set(asked.get() + 1);
            ends(at)
        };
        let gathering = Gathering { most: 1, chooses, ends: &ends };
        gather(&[demand(&large, 1)], &mut offers, &gathering);
        (kept(&offers)[0].0, asked.get())
    };
    let far = |at: usize| [vec![end(90, 2000)], vec![end(30, 1000)]][at].clone();
    let near = |at: usize| [vec![end(90, 2000)], vec![end(50, 1000)]][at].clone();
    assert_eq!(where_now(at_first(false), &far, true), (0, 0), "it does not even look");
    assert_eq!(where_now(at_first(true), &far, false), (0, 0), "nothing may be chosen now");
    assert_eq!(where_now(at_first(true), &far, true), (1, 2));
    assert_eq!(where_now(at_first(true), &near, true), (0, 2), "for less than half of the time it does not move");
    let closed = at_first(false).map(|offer| Offer { window: 0, ..offer });
    assert_eq!(where_now(closed, &far, true), (0, 0), "nothing can be sent there for a moment");
}

#[test]
fn an_earlier_demand_takes_what_is_kept_for_a_later_one() {
    let (large, small) = (cpu(4000), cpu(1000));
    let gathered = Some(Gathered { by: Some(1), may_move: false });
    let mut offers = [Offer { gathered, ..partly_free(3000, 4000) }];
    let got = gather(&[demand(&small, 2), demand(&large, 1)], &mut offers, &gathering(1, &unknown));
    assert_eq!(got, [Assignment { demand: 0, offer: 0, count: 2 }]);
    assert_eq!(kept(&offers), [(0, Some(1), 1000)]);
}

#[test]
fn what_has_gathered_for_a_later_demand_is_taken_over_and_not_given_up() {
    let (large, larger) = (cpu(4000), cpu(5000));
    let demands = [demand(&larger, 1), demand(&large, 1)];
    let run = |demands: &[Demand<'_>], may_move, most| {
        let gathered = Some(Gathered { by: Some(1), may_move });
        let mut offers = [Offer { gathered, ..partly_free(2000, 8000) }, partly_free(3000, 8000)];
        gather(demands, &mut offers, &gathering(most, &|at| vec![end([90, 10][at], 3000)]));
        kept(&offers)
    };
    assert_eq!(run(&demands, false, 1), [(0, Some(0), 2000)], "it would be sooner on the other");
    assert_eq!(run(&demands, false, 2), [(0, Some(1), 2000), (1, Some(0), 3000)], "there may be more");
    assert_eq!(run(&demands, true, 1), [(1, Some(0), 3000)], "the later one has been patient for long");
    // If it must not go there, the later one stays all the same.
    let elsewhere = [None, Some(0)];
    let demands = [Demand { ranks: Some(&elsewhere), ..demand(&larger, 1) }, demand(&large, 1)];
    assert_eq!(run(&demands, false, 1), [(0, Some(1), 2000)]);
}

#[test]
fn labels_say_where_it_may_gather_and_decide_among_equals() {
    let large = cpu(4000);
    let ranks = [None, Some(1), Some(2)];
    let picky = Demand { ranks: Some(&ranks), ..demand(&large, 1) };
    let mut offers = [3000, 2000, 2000].map(|free| partly_free(free, 4000));
    gather(&[picky], &mut offers, &gathering(9, &unknown));
    assert_eq!(kept(&offers), [(2, Some(0), 2000)]);
}

#[test]
fn others_are_sent_work_ahead_where_no_room_gathers() {
    let (large, one) = (cpu(4000), cpu(1000));
    let short = Demand { work: Some(10), ..demand(&one, 5) };
    let mut offers = [partly_free(1000, 4000), busy(4000, 100, 100)];
    let got = gather(&[demand(&large, 1), short], &mut offers, &gathering(1, &unknown));
    assert_eq!(got, [Assignment { demand: 1, offer: 1, count: 5 }]);
    assert_eq!(kept(&offers), [(0, Some(0), 1000)]);
}

#[test]
fn what_waits_on_an_executor_itself_has_nothing_kept() {
    let large = cpu(4000);
    let mut offers = [partly_free(1000, 4000), busy(4000, 100, 100)];
    let short = Demand { work: Some(10), ..demand(&large, 1) };
    assert_eq!(gather(&[short], &mut offers, &gathering(1, &unknown)).len(), 1);
    assert_eq!((kept(&offers).len(), offers[0].free.cpu_milli), (0, 1000));
}

/// A task on an executor of a simulated stream.
#[derive(Debug, Clone)]
struct Runs {
    until: u64,
    guess: u64,
    milli: u32,
}

/// Small tasks without end, of sizes and times in turn, and from the round `before` on large ones that are before all of them, which
/// of two is first changing by `turns`. Answers when one of these started, and when the last of those ended that ran when they came.
fn stream(
    totals: &[u32],
    (large, rival): (u32, Option<u32>),
    small: &[(u32, u64, u64)],
    before: usize,
    turns: &[bool],
) -> (u64, u64) {
    let mut running: Vec<Vec<Runs>> = totals.iter().map(|_| Vec::new()).collect();
    let mut stream = small.iter().cycle();
    // By offer, which of the large ones.
    let mut gathers: Vec<Option<usize>> = vec![None; totals.len()];
    let (mut now, mut round, mut last_end) = (0, 0, 0);
    loop {
        running.iter_mut().for_each(|runs| runs.retain(|task| task.until > now));
        let free = |(total, runs): (&u32, &Vec<Runs>)| total - runs.iter().map(|task| task.milli).sum::<u32>();
        let both = totals.iter().zip(&running);
        let mut offers: Vec<Offer> = both.map(|(total, runs)| partly_free(free((total, runs)), *total)).collect();
        let has_come = round >= before;
        if round == before {
            last_end = running.iter().flatten().map(|task| task.until).max().unwrap_or(now).max(now);
        }
        let mut larges: Vec<(usize, u32)> = [(0, large)].into_iter().chain(rival.map(|rival| (1, rival))).collect();
        if turns[round % turns.len()] {
            larges.reverse();
        }
        for (offer, by) in offers.iter_mut().zip(&gathers) {
            let by = by.and_then(|by| larges.iter().position(|(which, _)| *which == by));
            offer.gathered = by.map(|by| Gathered { by: Some(by), may_move: false });
        }
        let next: Vec<(u32, u64, u64)> = (0..40).filter_map(|_| stream.next().copied()).collect();
        let sizes = larges.iter().map(|(_, milli)| *milli).chain(next.iter().map(|(milli, ..)| *milli));
        let wants: Vec<Resources> = sizes.map(cpu).collect();
        let is_there = |at| u32::from(at >= larges.len() || has_come);
        let demands: Vec<Demand<'_>> = wants.iter().enumerate().map(|(at, want)| demand(want, is_there(at))).collect();
        let guess = |at: usize| running[at].iter().map(|task| end(task.guess, task.milli)).collect();
        let got = gather(&demands, &mut offers, &gathering(1, &guess));
        if got.iter().any(|assignment| assignment.demand < larges.len()) {
            return (now, last_end);
        }
        for assignment in got {
            let (milli, lasts, guess) = next[assignment.demand - larges.len()];
            running[assignment.offer].push(Runs { until: now + lasts, guess, milli });
        }
        let by = |offer: &Offer| Some(larges.get(offer.kept.as_ref()?.by?)?.0);
        gathers = offers.iter().map(by).collect();
        now = running.iter().flatten().map(|task| task.until).min().unwrap_or(now + 1);
        round += 1;
        assert!(round < 10_000, "it starves");
    }
}

proptest! {
    /// However little is known of how long tasks take. If two take turns in being first, one of them starts hardly later.
    #[test]
    fn a_large_task_starts_as_soon_as_those_that_ran_when_it_came_are_over(
        totals in proptest::collection::vec(2u32..9, 1..5),
        part in 1u32..101,
        rival in proptest::option::of(1u32..101),
        small in proptest::collection::vec((1u32..4, 1u64..50, 1u64..50), 1..8),
        before in 0usize..20,
        turns in proptest::collection::vec(any::<bool>(), 1..7),
    ) {
        let most = totals.iter().copied().max().unwrap_or(1);
        let milli = |part: u32| (most * part).div_ceil(100) * 1000;
        let totals: Vec<u32> = totals.iter().map(|total| total * 1000).collect();
        let small: Vec<_> = small.iter().map(|(cores, lasts, guess)| (cores * 1000, *lasts, *guess)).collect();
        let (started, mut last_end) = stream(&totals, (milli(part), rival.map(milli)), &small, before, &turns);
        if rival.is_some() {
            // While the smaller one was first, nothing had to be kept for it that the larger one needs.
            last_end += small.iter().map(|(_, lasts, _)| *lasts).max().unwrap_or(0);
        }
        prop_assert!(started <= last_end, "started at {started}, after {last_end}");
    }

    #[test]
    fn what_is_kept_is_kept_for_those_who_need_it_and_nothing_else_changes(
        wants in proptest::collection::vec((1u32..9, 1u32..6), 1..6),
        frees in proptest::collection::vec((0u32..8, 0u32..8, 0u32..4, proptest::option::of(0usize..6)), 1..8),
        most in 0usize..4,
        chooses in any::<bool>(),
    ) {
        let resources: Vec<Resources> = wants.iter().map(|(milli, _)| cpu(milli * 500)).collect();
        let demands: Vec<Demand<'_>> =
            resources.iter().zip(&wants).map(|(resources, (_, count))| demand(resources, *count)).collect();
        let before: Vec<Offer> = frees
            .iter()
            .map(|(free, used, window, by)| {
                let gathered = by.filter(|by| *by < demands.len()).map(|by| Gathered { by: Some(by), may_move: false });
                Offer { gathered, window: *window, ..partly_free(free * 500, (free + used) * 500) }
            })
            .collect();
        let ends = |at: usize| vec![end(at as u64 * 7 % 3, 500), end(2, frees[at].1 * 500)];
        let mut after = before.clone();
        let got = gather(&demands, &mut after, &Gathering { most, chooses, ends: &ends });
        let given = |demand: usize| got.iter().filter(|a| a.demand == demand).map(|a| a.count).sum::<u32>();
        prop_assert!(kept(&after).len() <= most);
        for (at, offer) in before.iter().enumerate() {
            let used: u32 =
                got.iter().filter(|a| a.offer == at).map(|a| demands[a.demand].resources.cpu_milli * a.count).sum();
            let kept = after[at].kept.as_ref().map_or(0, |kept| kept.free.cpu_milli);
            prop_assert_eq!(offer.free.cpu_milli - used - kept, after[at].free.cpu_milli);
            let Some(by) = after[at].kept.as_ref().and_then(|kept| kept.by) else { continue };
            let need = demands[by].resources;
            prop_assert!(given(by) < demands[by].count && fits(need, &offer.total) > 0);
            prop_assert!(chooses || offer.gathered.is_some_and(|known| known.by == Some(by)));
            prop_assert!(kept <= need.cpu_milli);
            // All that is free beyond what earlier ones took, up to the need.
            let earlier = |a: &&Assignment| a.offer == at && a.demand <= by;
            let taken: u32 =
                got.iter().filter(earlier).map(|a| demands[a.demand].resources.cpu_milli * a.count).sum();
            prop_assert_eq!(kept, need.cpu_milli.min(offer.free.cpu_milli - taken));
        }
        let mut short = false;
        let mut without = before.clone();
        let as_before = solve(&demands, &mut without);
        for (at, demand) in demands.iter().enumerate() {
            let mine = |all: &[Assignment]| all.iter().filter(|a| a.demand == at).copied().collect::<Vec<_>>();
            // For whoever is first, and up to the first who finds no room, nothing is as it was not.
            prop_assert!(short || mine(&got) == mine(&as_before));
            short |= given(at) < demand.count;
            let keeps = after.iter().filter(|offer| offer.is_kept_for(at)).count();
            prop_assert!(keeps <= (demand.count - given(at)) as usize);
            if given(at) < demand.count {
                let room = after.iter().any(|o| fits(demand.resources, &o.free).min(o.window) > 0);
                prop_assert!(!room, "a task could still be placed beside what is kept");
            }
        }
    }
}
