//! How waiting for a share of the machine ends: by getting it, in order, or by being given back.

use super::{Inside, Table};
use crate::control::StopCause;
use crate::keys::AttemptKey;

impl Table {
    /// The process is gone: its share is free, and those who wait for it go on.
    pub(crate) fn release(&self, key: AttemptKey) {
        let mut inside = self.inside();
        let Inside { entries, account, shares, .. } = &mut *inside;
        let Some(entry) = entries.get_mut(&key) else { return };
        let Some(group) = &entry.group else { return };
        if let Some(share) = entry.share.take() {
            account.give_back(&group.need, share);
            shares.gives_back(&entry.holder, &group.need);
        } else {
            shares.stops_waiting(&entry.holder, key);
        }
        inside.let_go_on();
        self.room_may_have_changed(&inside);
    }

    /// Ends an attempt that waits for its share, and no other: from here on it cannot begin. False if it has its share.
    pub(crate) fn give_back(&self, key: AttemptKey) -> bool {
        let mut inside = self.inside();
        let Inside { entries, shares, .. } = &mut *inside;
        let Some(entry) = entries.get(&key) else { return false };
        if !shares.stops_waiting(&entry.holder, key) {
            return false;
        }
        entry.control.stop(StopCause::GivenBack);
        inside.let_go_on();
        self.room_may_have_changed(&inside);
        true
    }
}

#[cfg(test)]
mod tests {
    use muster_proto::v1;

    use super::super::Verdict;
    use super::super::tests::{group, key, reason, table};
    use super::*;

    #[test]
    fn the_backlog_waits_in_order_and_goes_when_a_share_is_free() {
        let table = table(2);
        let (small, large) = (group(1, 1000), group(1, 2000));
        let Verdict::Accepted(first) = table.admit(&small, key(0, 1), || None) else { panic!("accepted") };
        let Verdict::Accepted(second) = table.admit(&large, key(1, 1), || None) else { panic!("accepted") };
        let Verdict::Accepted(third) = table.admit(&small, key(2, 1), || None) else { panic!("accepted") };
        assert_eq!(reason(&table.admit(&small, key(3, 1), || None)), Some(v1::RefusalReason::DoesNotFit));
        assert!(first.go.is_cancelled() && !second.go.is_cancelled() && !third.go.is_cancelled());
        table.release(key(0, 1));
        assert!(second.go.is_cancelled() && !third.go.is_cancelled(), "the small one does not overtake");
        table.release(key(1, 1));
        assert!(third.go.is_cancelled());
    }

    #[test]
    fn only_what_waits_is_given_back_and_its_number_is_never_used_again() {
        let table = table(3);
        let (small, large) = (group(1, 1000), group(1, 2000));
        let Verdict::Accepted(first) = table.admit(&small, key(0, 1), || None) else { panic!("accepted") };
        let Verdict::Accepted(second) = table.admit(&large, key(1, 1), || None) else { panic!("accepted") };
        let Verdict::Accepted(third) = table.admit(&small, key(2, 1), || None) else { panic!("accepted") };
        assert!(!table.give_back(key(0, 1)) && first.cause().is_none(), "it has its share");
        assert!(!third.go.is_cancelled());
        assert!(table.give_back(key(1, 1)));
        assert_eq!(second.cause(), Some(StopCause::GivenBack));
        assert!(third.go.is_cancelled(), "nothing is in its way any more");
        assert!(!table.give_back(key(1, 1)), "once");
        table.release(key(1, 1));
        table.set_finished(key(1, 1));
        table.release(key(0, 1));
        assert!(!second.go.is_cancelled(), "it never begins");
        table.remove_finished(&[key(1, 1)]);
        assert!(matches!(table.admit(&large, key(1, 1), || None), Verdict::Known));
    }
}
