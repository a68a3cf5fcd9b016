//! Admission: what is accepted, known and refused, and that whoever goes has its share.

use super::*;
use proptest::prelude::*;

pub(super) fn group(token: u64, cpu_milli: u32) -> Arc<Group> {
    Arc::new(Group {
        stage_path: "".into(),
        job: JobId(1),
        fence: Fence { epoch: 1, token },
        owner_address: "owner:1".into(),
        stage: 0,
        spec_digest: "".into(),
        inputs_revision: 0,
        need: Arc::new(Resources { cpu_milli, ..Resources::default() }),
        lost_after_ms: 0,
    })
}

pub(super) fn key(index: u32, attempt: u32) -> AttemptKey {
    AttemptKey { job: JobId(1), stage: 0, index, attempt }
}

pub(super) fn table(backlog: usize) -> Table {
    Table::new(Account::new(Resources { cpu_milli: 2000, ..Resources::default() }, Default::default()), backlog)
}

pub(super) fn reason(verdict: &Verdict) -> Option<v1::RefusalReason> {
    match verdict {
        Verdict::Refused(reason, _) => Some(*reason),
        _ => None,
    }
}

#[test]
fn the_same_attempt_is_one_a_lower_one_is_refused_and_a_higher_one_replaces() {
    let table = table(0);
    let group = group(5, 1000);
    let Verdict::Accepted(first) = table.admit(&group, key(0, 2), || None) else { panic!("accepted") };
    assert!(matches!(table.admit(&group, key(0, 2), || None), Verdict::Known));
    assert_eq!(reason(&table.admit(&group, key(0, 1), || None)), Some(v1::RefusalReason::StaleAttempt));
    assert!(!first.stop.is_cancelled());
    assert!(matches!(table.admit(&group, key(0, 3), || None), Verdict::Accepted(_)));
    assert_eq!(first.cause(), Some(StopCause::Replaced));
}

#[test]
fn a_settled_attempt_is_not_started_again_by_a_delayed_launch() {
    let table = table(0);
    let group = group(5, 1000);
    assert!(matches!(table.admit(&group, key(0, 1), || None), Verdict::Accepted(_)));
    table.release(key(0, 1));
    table.set_finished(key(0, 1));
    table.remove_finished(&[key(0, 1)]);
    assert!(table.held(None).is_empty());
    assert!(matches!(table.admit(&group, key(0, 1), || None), Verdict::Known));
}

#[test]
fn what_was_refused_for_lack_of_room_is_refused_for_ever() {
    let table = table(0);
    let group = group(5, 2000);
    assert!(matches!(table.admit(&group, key(0, 1), || None), Verdict::Accepted(_)));
    let full = Some(v1::RefusalReason::DoesNotFit);
    assert_eq!(reason(&table.admit(&group, key(1, 1), || None)), full);
    table.release(key(0, 1));
    table.set_finished(key(0, 1));
    assert_eq!(reason(&table.admit(&group, key(1, 1), || None)), full, "its owner has given it up");
    assert!(matches!(table.admit(&group, key(1, 2), || None), Verdict::Accepted(_)));
}

#[test]
fn checks_come_in_their_order() {
    let table = table(0);
    let newer = || Some(Fence { epoch: 2, token: 0 });
    assert_eq!(reason(&table.admit(&group(9, 1), key(0, 1), newer)), Some(v1::RefusalReason::StaleFence));
    assert_eq!(reason(&table.admit(&group(9, 2001), key(0, 1), || None)), Some(v1::RefusalReason::DoesNotFit));
    assert!(matches!(table.admit(&group(9, 2000), key(0, 2), || None), Verdict::Accepted(_)));
    assert_eq!(reason(&table.admit(&group(9, 1), key(1, 1), || None)), Some(v1::RefusalReason::DoesNotFit));
    table.set_draining(true);
    assert_eq!(reason(&table.admit(&group(9, 1), key(1, 2), || None)), Some(v1::RefusalReason::Draining));
    assert!(matches!(table.admit(&group(9, 1), key(0, 2), || None), Verdict::Known), "known before draining");
}

proptest! {
    #[test]
    fn whoever_goes_has_its_share(steps in proptest::collection::vec((0u32..12, 1u32..4, 0u8..3), 1..120)) {
        let table = table(3);
        let mut going: BTreeMap<AttemptKey, (Arc<Control>, u32)> = BTreeMap::new();
        for (index, attempt, step) in steps {
            let need = 400 * (index % 4 + 1);
            match step {
                0 | 1 => {
                    if let Verdict::Accepted(control) = table.admit(&group(1, need), key(index, attempt), || None) {
                        going.insert(key(index, attempt), (control, need));
                    }
                }
                _ => {
                    table.release(key(index, attempt));
                    table.set_finished(key(index, attempt));
                    going.remove(&key(index, attempt));
                }
            }
            let used: u32 =
                going.values().filter(|(control, _)| control.go.is_cancelled()).map(|(_, need)| need).sum();
            prop_assert_eq!(table.free().cpu_milli, 2000 - used);
            prop_assert_eq!(table.unfinished(), going.len());
        }
    }
}
