//! Who gets what becomes free, and that every account adds up.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::Verdict;
use super::super::tests::{key, table};
use super::*;
use crate::control::Control;
use crate::keys::Fence;

fn group(scheduler: &str, job: u64, cpu_milli: u32) -> Arc<Group> {
    Arc::new(Group {
        stage_path: "".into(),
        job: JobId(job),
        fence: Fence { epoch: 1, token: 1 },
        owner_address: scheduler.into(),
        stage: 0,
        spec_digest: "".into(),
        inputs_revision: 0,
        need: Arc::new(Resources { cpu_milli, ..Resources::default() }),
        lost_after_ms: 0,
    })
}

fn launch(table: &Table, group: &Arc<Group>, index: u32) -> Arc<Control> {
    let key = AttemptKey { job: group.job, ..key(index, 1) };
    match table.admit(group, key, || None) {
        Verdict::Accepted(control) => control,
        other => panic!("{other:?}"),
    }
}

fn end(table: &Table, group: &Arc<Group>, index: u32) {
    let key = AttemptKey { job: group.job, ..key(index, 1) };
    table.release(key);
    table.set_finished(key);
}

fn reserve(table: &Table, scheduler: &str, cpu_milli: u32, count: u32) {
    let need = Resources { cpu_milli, ..Resources::default() };
    reserve_at(table, scheduler, need, count, Instant::now());
}

fn reserve_at(table: &Table, scheduler: &str, need: Resources, count: u32, now: Instant) {
    table.reserve(&scheduler.into(), Reservation::of(need, (count, 0), now));
}

fn room(table: &Table, scheduler: &str) -> u32 {
    table.account_for(scheduler).room.unwrap().cpu_milli
}

#[test]
fn what_becomes_free_is_for_who_has_least_of_those_who_ask() {
    let table = table(8);
    let one = group("one", 1, 1000);
    launch(&table, &one, 0);
    launch(&table, &one, 1);
    assert_eq!((room(&table, "one"), room(&table, "two")), (0, 0));
    end(&table, &one, 0);
    assert_eq!((room(&table, "one"), room(&table, "two")), (1000, 1000), "nobody asks");
    reserve(&table, "two", 1000, 5);
    assert_eq!((room(&table, "one"), room(&table, "two")), (0, 1000));
    assert!(!launch(&table, &one, 2).go.is_cancelled(), "that is for the other one");
    let two = group("two", 2, 1000);
    assert!(launch(&table, &two, 0).go.is_cancelled());
    end(&table, &one, 1);
    assert_eq!((room(&table, "one"), room(&table, "two")), (0, 0), "equals take turns: the one that waits has it");
}

#[test]
fn room_gathers_for_a_large_task_of_who_has_least() {
    let table = table(8);
    let (one, two) = (group("one", 1, 1000), group("two", 2, 2000));
    launch(&table, &one, 0);
    launch(&table, &one, 1);
    let waits = launch(&table, &one, 2);
    reserve(&table, "two", 2000, 1);
    end(&table, &one, 0);
    assert!(!waits.go.is_cancelled(), "the half that is free is kept");
    end(&table, &one, 1);
    // Both have nothing; the other one was given something before.
    assert!(!waits.go.is_cancelled());
    assert!(launch(&table, &two, 0).go.is_cancelled());
    end(&table, &two, 0);
    table.end_reservation(&"two".into(), Instant::now());
    assert!(waits.go.is_cancelled());
}

#[test]
fn who_counts_twice_as_much_gets_twice_as_much() {
    let table = table(8);
    for (name, weight) in [("one", 500), ("two", 1000)] {
        let need = Resources { cpu_milli: 100, ..Resources::default() };
        table.reserve(&name.into(), Reservation::of(need, (100, weight), Instant::now()));
    }
    let all = (room(&table, "one"), room(&table, "two"));
    assert!(all == (700, 1300) || all == (600, 1400), "{all:?}");
}

#[test]
fn who_needs_all_of_the_machine_finds_it_empty_though_others_have_as_little() {
    // By name, too, the other one would be first.
    for names in [["one", "two"], ["two", "one"]] {
        let table = table(8);
        let (small, large) = (group(names[0], 1, 1000), group(names[1], 2, 2000));
        launch(&table, &small, 0);
        launch(&table, &small, 1);
        reserve(&table, names[0], 1000, 100);
        reserve(&table, names[1], 2000, 1);
        end(&table, &small, 0);
        end(&table, &small, 1);
        assert_eq!((room(&table, names[0]), room(&table, names[1])), (0, 2000));
        assert!(launch(&table, &large, 0).go.is_cancelled());
    }
}

#[test]
fn an_offer_that_is_not_taken_and_a_reservation_that_is_not_repeated_end() {
    let table = table(8);
    let one = group("one", 1, 1000);
    launch(&table, &one, 0);
    let (need, began) = (Resources { cpu_milli: 1000, ..Resources::default() }, Instant::now());
    reserve_at(&table, "two", need.clone(), 1, began);
    let two: Arc<str> = "two".into();
    assert!(table.offer(&two, began).unwrap().is_some());
    assert_eq!(room(&table, "one"), 0);
    let later = began + OFFER_LIVES;
    reserve_at(&table, "two", need.clone(), 1, later);
    assert!(table.offer(&two, later).is_err(), "told once more it is the same offer");
    assert_eq!(room(&table, "one"), 1000);
    launch(&table, &one, 1);
    reserve_at(&table, "two", need, 1, later);
    assert!(table.offer(&two, later + RESERVATION_LIVES / 2).unwrap().is_none(), "there is no room");
    assert!(table.offer(&two, later + RESERVATION_LIVES).is_err());
}

#[test]
fn what_a_job_has_goes_with_it_to_its_next_owner() {
    let table = table(8);
    let (one, other) = (group("one", 1, 1000), group("one", 2, 1000));
    launch(&table, &one, 0);
    launch(&table, &other, 0);
    launch(&table, &other, 1);
    table.owner_is(JobId(2), &"two".into());
    let used = |scheduler| table.account_for(scheduler).yours.unwrap().cpu_milli;
    assert_eq!((used("one"), used("two")), (1000, 1000));
    assert_eq!((table.account_for("one").others, table.account_for("two").others), (2, 1));
    end(&table, &other, 0);
    assert_eq!((used("one"), used("two")), (1000, 1000), "what waited is its next owner's, too");
    end(&table, &other, 1);
    end(&table, &one, 0);
    assert_eq!(table.inside().shares.holders.len(), 0, "nothing is kept of who has nothing");
}

proptest! {
    #[test]
    fn every_account_adds_up_and_nothing_waits_beside_free_room(
        steps in proptest::collection::vec((0u64..3, 0u32..8, 1u32..4, 0u8..5), 1..150),
    ) {
        let table = table(64);
        let names = ["a", "b", "c"];
        let mut live: BTreeMap<(u64, u32), Arc<Control>> = BTreeMap::new();
        let mut owner: Vec<usize> = vec![0, 1, 2];
        let mut attempts: BTreeMap<(u64, u32), u32> = BTreeMap::new();
        for (job, index, size, step) in steps {
            let scheduler = names[owner[usize::try_from(job).unwrap()]];
            let group = group(scheduler, job, 500 * size);
            let attempt = attempts.get(&(job, index)).copied().unwrap_or(0);
            let of = |attempt| AttemptKey { job: JobId(job), ..key(index, attempt) };
            match step {
                0 | 1 if !live.contains_key(&(job, index)) => {
                    attempts.insert((job, index), attempt + 1);
                    if let Verdict::Accepted(control) = table.admit(&group, of(attempt + 1), || None) {
                        live.insert((job, index), control);
                    }
                }
                2 => {
                    if live.remove(&(job, index)).is_some() {
                        table.release(of(attempt));
                        table.set_finished(of(attempt));
                    }
                }
                3 => {
                    let next = usize::try_from(size).unwrap() % 3;
                    owner[usize::try_from(job).unwrap()] = next;
                    table.owner_is(JobId(job), &names[next].into());
                }
                _ => {
                    let wants = size > 1;
                    let need = Resources { cpu_milli: 500, ..Resources::default() };
                    let (now, scheduler) = (Instant::now(), scheduler.into());
                    match wants {
                        true => table.reserve(&scheduler, Reservation::of(need, (index, 1000 * (index % 3)), now)),
                        false => table.end_reservation(&scheduler, now),
                    }
                }
            }
            let accounts = names.map(|name| table.account_for(name));
            let yours: u32 = accounts.iter().map(|account| account.yours.as_ref().unwrap().cpu_milli).sum();
            prop_assert_eq!(yours, 2000 - table.free().cpu_milli);
            let inside = table.inside();
            let started = live.values().filter(|control| control.go.is_cancelled()).count();
            prop_assert_eq!(live.len() - started, inside.shares.waiting());
            for (name, holder) in &inside.shares.holders {
                if let Some((first, need)) = holder.queue.front() {
                    prop_assert!(!inside.room(name, Some(need)).has(need), "{first} waits for nothing");
                }
            }
            // What each could use is promised to one of them. (What all of them leave is anybody's.)
            let wants_all = |told: &Reservation| told.count >= 4;
            let all_reserve = inside.shares.holders.values().all(|holder| holder.reservation.as_ref().is_some_and(wants_all));
            let told: u32 = inside.shares.holders.keys().map(|name| inside.room(name, None).cpu_milli).sum();
            prop_assert!(!all_reserve || told <= inside.account.free().cpu_milli, "{told} told");
        }
    }
}
