//! What a recount says of a group's numbers.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use muster_graph::groups::{Change, ChangeKind, GroupPath, JobEnd, Spent, Sums, Tally, TaskTally};
use muster_graph::spec::Resources;

fn change(kind: ChangeKind) -> Change {
    Change { kind, tasks: TaskTally::default(), spent: Spent::default() }
}

#[test]
fn a_correction_makes_the_numbers_those_of_a_recount_whatever_was_added_in_between() {
    let resources = Resources { named: [("gpu".to_owned(), 2)].into(), ..Resources::default() };
    let ended = |size| Change {
        kind: ChangeKind::Ended(JobEnd::Successful),
        tasks: TaskTally { successful: size, ..TaskTally::default() },
        spent: Spent::of(size, &resources),
    };
    let (mut damaged, mut truth) = (Sums::default(), Tally::default());
    // The end of one job was never counted, and one job was counted twice.
    for _ in 0..3 {
        assert!(!damaged.add(&change(ChangeKind::Submitted), 1));
    }
    truth.add(&change(ChangeKind::Submitted));
    truth.add(&change(ChangeKind::Submitted));
    truth.add(&ended(5));
    let correction = damaged.tally.correction(&truth).unwrap();
    assert_eq!((correction.by["submitted"], correction.by["spent.named_ms.gpu"]), (-1, 10));
    assert!(!damaged.add(&ended(7), 2), "two jobs are live by its numbers");
    truth.add(&ended(7));
    let corrected = Change { kind: ChangeKind::Corrected(correction), ..change(ChangeKind::Submitted) };
    assert!(damaged.add(&corrected, 3), "with this it is seen to be complete");
    assert_eq!((&damaged.tally, damaged.completed_at, damaged.completions), (&truth, 3, 1));
    assert_eq!(damaged.tally.correction(&truth), None);
    let group: GroupPath = "a/b".parse().unwrap();
    assert_eq!(corrected.concerns(&group).collect::<Vec<_>>(), ["a/b"], "each group has a correction of its own");
    assert_eq!(ended(1).concerns(&group).collect::<Vec<_>>(), ["a/b", "a", ""]);
}
