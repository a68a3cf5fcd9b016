//! Who is judged, on random histories.

use muster_graph::ids::TaskId;
use proptest::prelude::*;

use super::*;

/// Some executors and what they are thought of.
struct Fleet {
    ends: Ends,
    opinions: Vec<Opinion>,
    task: u32,
}

impl Fleet {
    fn of(executors: usize) -> Self {
        let opinions = (0..executors).map(|_| Opinion::default()).collect();
        Self { ends: Ends::default(), opinions, task: 0 }
    }

    /// An attempt ends. True: its executor is judged.
    fn ends(&mut self, executor: usize, (job, stage): (u64, u32), outcome: v1::Outcome) -> bool {
        self.task += 1;
        let key = (JobId(job), TaskId::new(stage, self.task), 1);
        let end = v1::AttemptFinished { outcome: outcome.into(), started_at_ms: 1, ..Default::default() };
        self.told(executor, key, &end)
    }

    fn told(&mut self, executor: usize, key: HeldKey, end: &v1::AttemptFinished) -> bool {
        matches!(self.opinions[executor].ended(&mut self.ends, key, end, 0), Verdict::Guilty { .. })
    }
}

const GOOD: v1::Outcome = v1::Outcome::Succeeded;
const BAD: v1::Outcome = v1::Outcome::Failed;

#[test]
fn one_that_fails_what_succeeds_elsewhere_is_judged_by_its_fifth_failure() {
    // Tasks of one stage, a task of each of many jobs, and both in turns.
    let shapes: [fn(u64) -> (u64, u32); 3] = [|_| (1, 0), |n| (n, 0), |n| (n % 2 * n, 0)];
    for shape in shapes {
        let mut fleet = Fleet::of(2);
        for failure in 1..=5 {
            assert!(!fleet.ends(1, shape(100 + failure), GOOD));
            let judged = fleet.ends(0, shape(failure), BAD);
            assert!(!fleet.ends(1, shape(200 + failure), GOOD));
            // What succeeded elsewhere before it failed here says nothing of now.
            assert!(!judged || failure == 5);
        }
        assert!(fleet.ends(0, shape(6), BAD), "at the latest");
    }
}

#[test]
fn what_could_not_be_begun_three_times_is_enough_and_what_was_stopped_never_is() {
    let lost = |started_at_ms, code: Option<i32>| v1::AttemptFinished {
        outcome: v1::Outcome::ExecutorLost.into(),
        started_at_ms,
        exit: code.map(|code| v1::Exit { how: Some(v1::exit::How::Code(code)) }),
        message: "no space left on device".to_owned(),
        ..Default::default()
    };
    let key = (JobId(1), TaskId::new(0, 0), 1);
    let mut fleet = Fleet::of(1);
    assert!(!fleet.told(0, key, &lost(0, None)) && !fleet.told(0, key, &lost(0, None)));
    assert!(fleet.told(0, key, &lost(0, None)));
    assert_eq!(
        fleet.opinions[0].in_words("no space left on device"),
        "the last 3 attempts there came to nothing, 3 of them could not be started; the last one: no space left on device"
    );
    let mut fleet = Fleet::of(1);
    for outcome in
        [v1::Outcome::Cancelled, v1::Outcome::GivenBack, v1::Outcome::OutOfMemory, v1::Outcome::LaunchRefused]
    {
        assert!((0..50).all(|_| !fleet.ends(0, (1, 0), outcome)), "{outcome:?}");
    }
    assert!((0..50).all(|_| !fleet.told(0, key, &lost(1, Some(143)))), "it was stopped");
    assert_eq!(fleet.opinions[0].ends, 0);
}

#[test]
fn a_message_of_any_length_is_cut_between_characters() {
    let mut fleet = Fleet::of(1);
    fleet.ends(0, (1, 0), BAD);
    assert!(fleet.opinions[0].in_words(&"ü".repeat(MESSAGE_BYTES_MAX)).ends_with('ü'));
}

/// A stage of one of some jobs.
fn stage() -> impl Strategy<Value = (u64, u32)> {
    (1..8u64, 0..3u32)
}

fn history(executors: usize) -> impl Strategy<Value = Vec<(usize, (u64, u32), bool)>> {
    prop::collection::vec((0..executors, stage(), prop::bool::weighted(0.5)), 1..400)
}

proptest! {
    #[test]
    fn one_that_succeeds_at_one_in_five_is_never_judged(history in history(4), first in 0..5u32) {
        let mut fleet = Fleet::of(4);
        let mut in_a_row = first;
        for (executor, stage, good) in history {
            let good = if executor == 0 { in_a_row == 4 } else { good };
            if executor == 0 {
                in_a_row = if good { 0 } else { in_a_row + 1 };
            }
            let judged = fleet.ends(executor, stage, if good { GOOD } else { BAD });
            prop_assert!(!judged || executor != 0);
        }
    }

    #[test]
    fn one_that_fails_all_is_judged_while_the_others_succeed(rounds in prop::collection::vec((stage(), stage(), stage(), stage()), 60)) {
        let mut fleet = Fleet::of(4);
        let mut judged = false;
        for (bad, a, b, c) in rounds {
            judged |= fleet.ends(0, bad, BAD);
            for (executor, stage) in [(1, a), (2, b), (3, c)] {
                prop_assert!(!fleet.ends(executor, stage, GOOD));
            }
        }
        prop_assert!(judged);
    }

    #[test]
    fn a_job_that_fails_everywhere_has_nobody_judged(
        history in prop::collection::vec((0..6usize, 0..20u32, 0..10u32), 1..600),
        others in 0..10u32,
    ) {
        let mut fleet = Fleet::of(6);
        for (executor, stage, chance) in history {
            // Some executors get nothing but the bad job.
            let good = executor >= 3 && chance < others;
            let judged = if good { fleet.ends(executor, (2, stage), GOOD) } else { fleet.ends(executor, (1, stage), BAD) };
            prop_assert!(!judged);
        }
    }

    #[test]
    fn when_everything_fails_everywhere_nobody_is_judged(history in history(5)) {
        let mut fleet = Fleet::of(5);
        for (executor, stage, _) in history {
            prop_assert!(!fleet.ends(executor, stage, BAD));
        }
    }
}
