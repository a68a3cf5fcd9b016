//! Schedules: which ticks are due, and what becomes of them. Each rule of `muster_graph::schedule` has a test of its name.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;

use muster_graph::schedule::{
    Due, Missed, ON_TIME_MS, Overlap, PassedOver, Progress, Rules, Step, Timetable, WAITING_MAX, Why,
};
use proptest::prelude::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

fn at(text: &str) -> u64 {
    let instant: jiff::Timestamp = text.parse().unwrap();
    u64::try_from(instant.as_millisecond()).unwrap()
}

fn hourly() -> Timetable {
    Timetable::new("0 * * * *", "UTC").unwrap()
}

fn rules(overlap: Overlap, missed: Missed, window: Option<u64>) -> Rules {
    Rules { overlap, missed, window }
}

fn step(progress: &Progress, rules: Rules, now: u64, busy: bool) -> Step {
    progress.step(&hourly(), rules, now, busy)
}

#[test]
fn a_simulated_year_passes_both_changes_of_the_clocks() {
    let (from, until) = (at("2026-01-01T00:00:00Z") - 1, at("2027-01-01T00:00:00Z") - 1);
    // In Berlin 02:30 is left out on 29 March, and comes twice on 25 October.
    let daily: Vec<u64> = Timetable::new("30 2 * * *", "Europe/Berlin").unwrap().between(from, until).collect();
    assert_eq!(daily.len(), 365);
    assert!(daily.contains(&at("2026-03-29T01:00:00Z")), "as soon as the hour that is left out is over");
    assert!(daily.contains(&at("2026-10-25T00:30:00Z")), "the first of two");
    assert!(!daily.contains(&at("2026-10-25T01:30:00Z")), "and not the second");
    for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"] {
        let quarters: Vec<u64> = Timetable::new("*/15 * * * *", zone).unwrap().between(from, until).collect();
        assert_eq!(quarters.len(), 365 * 96, "{zone}");
        assert!(quarters.windows(2).all(|pair| pair[1] - pair[0] == 15 * MINUTE), "{zone}");
    }
}

#[test]
fn the_last_tick_up_to_an_instant_is_the_one_before_the_next() {
    for (cron, zone) in [("30 2 * * *", "Europe/Berlin"), ("*/7 * * * *", "America/New_York"), ("15 3 * * SUN", "UTC")]
    {
        let table = Timetable::new(cron, zone).unwrap();
        let mut tick = table.next_after(at("2026-03-01T00:00:00Z")).unwrap();
        for _ in 0..2_000 {
            let next = table.next_after(tick).unwrap();
            assert_eq!(table.last_until(next - 1), Some(tick), "{cron} {zone} before {next}");
            assert_eq!(table.last_until(next), Some(next), "{cron} {zone} at {next}");
            tick = next;
        }
    }
}

#[test]
fn what_is_no_timetable_is_refused_with_a_remedy() {
    for (cron, zone, part) in [
        ("61 * * * *", "UTC", "cron: '61 * * * *'"),
        ("* * * *", "UTC", "write minute, hour"),
        ("", "UTC", "write minute, hour"),
        ("0 0 30 2 *", "UTC", "names a day that never comes"),
        ("0 0 * * *", "Europe/Atlantis", "zone: 'Europe/Atlantis' is no time zone"),
        (&"1,".repeat(200), "UTC", "more than the 256"),
    ] {
        let message = Timetable::new(cron, zone).unwrap_err().to_string();
        assert!(message.contains(part), "{cron:?} {zone}: {message}");
    }
    Timetable::new("*/10 * * * * *", "UTC").expect("with seconds");
    Timetable::new("@daily", "europe/berlin").expect("names of zones are found whatever their case");
}

#[test]
fn a_tick_runs_when_it_is_due_and_only_once() {
    let progress = Progress::from_now(10 * HOUR + 1);
    let rules = Rules::default();
    assert_eq!(step(&progress, rules, 11 * HOUR - 1, false).run, None);
    let first = step(&progress, rules, 11 * HOUR, false);
    assert_eq!(first.run, Some(Due { tick: 11 * HOUR, replaces: false }));
    assert_eq!(step(&first.progress, rules, 11 * HOUR, false).run, None);
    assert_eq!(first.progress.next_look(&hourly()), Some(12 * HOUR));
}

#[test]
fn a_clock_that_goes_back_fires_nothing_again() {
    let rules = Rules::default();
    let progress = step(&Progress::from_now(10 * HOUR), rules, 11 * HOUR, false).progress;
    for now in [11 * HOUR - 1, 9 * HOUR, 0, 11 * HOUR] {
        let again = step(&progress, rules, now, false);
        assert_eq!((again.run, &again.progress), (None, &progress), "{now}");
    }
    assert!(step(&progress, rules, 12 * HOUR, false).run.is_some());
}

#[test]
fn a_tick_is_on_time_for_as_long_as_a_failover_takes() {
    let missed_none = rules(Overlap::Skip, Missed::None, None);
    let progress = Progress::from_now(10 * HOUR);
    assert!(step(&progress, missed_none, 11 * HOUR + ON_TIME_MS, false).run.is_some());
    let late = step(&progress, missed_none, 11 * HOUR + ON_TIME_MS + 1, false);
    assert_eq!(late.run, None);
    assert_eq!(late.passed_over, [PassedOver { first: 11 * HOUR, last: 11 * HOUR, why: Why::Missed }]);
}

#[test]
fn missed_none_passes_all_of_them_over() {
    let late = step(&Progress::from_now(10 * HOUR), rules(Overlap::Skip, Missed::None, None), 15 * HOUR - 1, false);
    assert_eq!(late.run, None);
    assert_eq!(late.passed_over, [PassedOver { first: 11 * HOUR, last: 14 * HOUR, why: Why::Missed }]);
}

#[test]
fn missed_one_runs_the_newest() {
    let late = step(&Progress::from_now(10 * HOUR), rules(Overlap::Skip, Missed::One, None), 15 * HOUR - 1, false);
    assert_eq!(late.run, Some(Due { tick: 14 * HOUR, replaces: false }));
    assert_eq!(late.passed_over, [PassedOver { first: 11 * HOUR, last: 13 * HOUR, why: Why::MadeUpFor }]);
}

#[test]
fn missed_one_is_made_up_for_by_a_tick_that_is_on_time() {
    let late = step(&Progress::from_now(10 * HOUR), rules(Overlap::Skip, Missed::One, None), 15 * HOUR, false);
    assert_eq!(late.run, Some(Due { tick: 15 * HOUR, replaces: false }));
    assert_eq!(late.passed_over, [PassedOver { first: 11 * HOUR, last: 14 * HOUR, why: Why::MadeUpFor }]);
}

#[test]
fn missed_all_runs_each_one_after_the_other() {
    let rules = rules(Overlap::Skip, Missed::All, None);
    let mut progress = Progress::from_now(10 * HOUR);
    let now = 15 * HOUR - 1;
    for tick in 11..15 {
        assert_eq!(step(&progress, rules, now, true).run, None, "while one runs, the next one waits");
        let next = step(&progress, rules, now, false);
        assert_eq!(next.run, Some(Due { tick: tick * HOUR, replaces: false }));
        progress = next.progress;
    }
    assert_eq!(step(&progress, rules, now, false).run, None);
}

#[test]
fn missed_all_loses_none_when_more_were_missed_than_may_wait() {
    let rules = rules(Overlap::Skip, Missed::All, None);
    let mut progress = Progress::from_now(0);
    let now = 1_000 * HOUR + HOUR / 2;
    let mut ran = Vec::new();
    while let Step { run: Some(due), progress: next, passed_over, .. } = step(&progress, rules, now, false) {
        assert!(next.waiting.len() <= WAITING_MAX);
        assert_eq!(passed_over, []);
        ran.push(due.tick);
        progress = next;
    }
    assert_eq!(ran, (1..=1_000).map(|hour| hour * HOUR).collect::<Vec<_>>());
}

#[test]
fn what_is_older_than_the_window_is_not_made_up_for() {
    for missed in [Missed::One, Missed::All] {
        let rules = rules(Overlap::Queue, missed, Some(2 * HOUR));
        let late = step(&Progress::from_now(10 * HOUR), rules, 20 * HOUR - 2 * MINUTE, true);
        assert_eq!(
            late.passed_over[0],
            PassedOver { first: 11 * HOUR, last: 17 * HOUR, why: Why::Missed },
            "{missed:?}"
        );
        let waiting: &[u64] = if missed == Missed::One { &[19 * HOUR] } else { &[18 * HOUR, 19 * HOUR] };
        assert_eq!(late.progress.waiting, waiting, "{missed:?}");
    }
}

#[test]
fn overlap_skip_passes_over_what_meets_an_unfinished_job() {
    let busy = step(&Progress::from_now(10 * HOUR), Rules::default(), 11 * HOUR, true);
    assert_eq!(busy.run, None);
    assert_eq!(busy.passed_over, [PassedOver { first: 11 * HOUR, last: 11 * HOUR, why: Why::Overlap }]);
    assert_eq!(step(&busy.progress, Rules::default(), 11 * HOUR + 1, false).run, None);
}

#[test]
fn overlap_queue_runs_them_one_after_the_other() {
    let rules = rules(Overlap::Queue, Missed::None, None);
    let mut progress = Progress::from_now(10 * HOUR);
    for hour in 11..14 {
        let busy = step(&progress, rules, hour * HOUR, true);
        assert_eq!(busy.run, None);
        progress = busy.progress;
    }
    for hour in 11..14 {
        let free = step(&progress, rules, 13 * HOUR + MINUTE, false);
        assert_eq!(free.run, Some(Due { tick: hour * HOUR, replaces: false }));
        progress = free.progress;
    }
}

#[test]
fn overlap_queue_is_bounded() {
    let rules = rules(Overlap::Queue, Missed::None, None);
    let mut progress = Progress::from_now(0);
    for hour in 1..=WAITING_MAX as u64 {
        progress = step(&progress, rules, hour * HOUR, true).progress;
    }
    let beyond = (WAITING_MAX as u64 + 1) * HOUR;
    let full = step(&progress, rules, beyond, true);
    assert_eq!(full.passed_over, [PassedOver { first: beyond, last: beyond, why: Why::QueueFull }]);
}

#[test]
fn overlap_replace_ends_the_unfinished_job() {
    let rules = rules(Overlap::Replace, Missed::None, None);
    let progress = Progress::from_now(10 * HOUR);
    assert_eq!(step(&progress, rules, 11 * HOUR, true).run, Some(Due { tick: 11 * HOUR, replaces: true }));
    assert_eq!(step(&progress, rules, 11 * HOUR, false).run, Some(Due { tick: 11 * HOUR, replaces: false }));
}

proptest! {
    /// Whatever the rules, however the clock jumps and whenever somebody looks: each tick is decided once. Those that ran, that
    /// wait and that were passed over are all that there were, and none of them twice.
    #[test]
    fn each_tick_is_decided_once(
        overlap in prop::sample::select(vec![Overlap::Skip, Overlap::Queue, Overlap::Replace]),
        missed in prop::sample::select(vec![Missed::None, Missed::One, Missed::All]),
        window in prop::option::of(0..10 * HOUR),
        looks in prop::collection::vec((-2 * HOUR as i64..6 * HOUR as i64, any::<bool>()), 1..60),
    ) {
        let table = Timetable::new("*/20 * * * *", "Europe/Berlin").unwrap();
        let rules = rules(overlap, missed, window);
        let start = at("2026-03-28T12:00:00Z");
        let (mut now, mut progress) = (start, Progress::from_now(start));
        let mut decided = BTreeSet::new();
        for (by, busy) in looks {
            now = now.saturating_add_signed(by).max(start - DAY);
            let taken = progress.step(&table, rules, now, busy);
            prop_assert!(taken.progress.decided_until >= progress.decided_until);
            prop_assert!(taken.progress.waiting.len() <= WAITING_MAX);
            prop_assert!(taken.progress.waiting.is_sorted());
            if let Some(due) = taken.run {
                prop_assert!(due.tick <= now.max(progress.decided_until));
                prop_assert!(!busy || due.replaces, "a second job beside an unfinished one");
                prop_assert!(decided.insert(due.tick), "{} ran though it was decided", due.tick);
            }
            for passed in &taken.passed_over {
                prop_assert!(passed.first <= passed.last);
                for tick in table.between(passed.first - 1, passed.last) {
                    prop_assert!(decided.insert(tick), "{tick} was passed over though it was decided");
                }
            }
            progress = taken.progress;
        }
        for tick in &progress.waiting {
            prop_assert!(decided.insert(*tick), "{tick} waits though it was decided");
        }
        let all: BTreeSet<u64> = table.between(start, progress.decided_until).collect();
        prop_assert_eq!(decided, all);
    }
}
