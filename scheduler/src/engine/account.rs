//! What of an executor's resources this scheduler has given away. Booked when an attempt is assigned, freed when the
//! executor says that the attempt is over, however the job judges the report. The executor's own account is the truth;
//! this one is for placing.
//!
//! The books are kept as the executor keeps its own: what does not fit waits there, in its order, and nothing overtakes it.
//!
//! **Invariant:** an attempt is launched if and only if its booking is there and was not sent before. Whatever removes
//! a booking that was not sent (the job was dropped, the executor is lost) gives its place in the window back.

use std::sync::Arc;

use muster_graph::ids::Millis;
use muster_graph::spec::Resources;

use super::executors::{Executor, HeldKey};
use crate::placement;

/// An attempt's share of an executor.
#[derive(Debug)]
pub(crate) struct Booking {
    pub(super) resources: Arc<Resources>,
    /// What it is expected to keep busy, in thousandths of a core times microseconds. `None`: long, or nobody knows.
    pub(super) work: Option<u64>,
    /// It has no share yet: it waits for those before it.
    pub(super) waits: bool,
    /// Its launch has left, which it may only once its assignment is committed.
    pub(crate) sent: bool,
    /// When it left, or when the attempt was asked back last.
    pub(super) since: Millis,
    /// How often it was asked back.
    pub(super) asks: u32,
    /// The executor has shown that the launch arrived.
    arrived: bool,
}

impl Booking {
    /// Its launch has left, and may have been lost on the way.
    pub(super) fn is_on_its_way(&self) -> bool {
        self.sent && !self.arrived
    }
}

impl Executor {
    /// Attempts on it: ours, and those of others as it told last.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.ours().saturating_add(self.foreign_running)
    }

    /// Attempts of this scheduler's jobs on it.
    fn ours(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    /// What is left for placing: total, less ours, less what others use or are owed. Nothing while some of ours wait: what is free
    /// now is theirs.
    pub(crate) fn free(&self) -> Resources {
        if self.ahead.is_empty() { self.left() } else { Resources::default() }
    }

    /// Total, less ours, less what others use.
    pub(crate) fn left(&self) -> Resources {
        minus(&minus(&self.total, &self.used), &self.foreign)
    }

    /// Books an attempt that an owner before us, or an earlier copy of the job, had committed.
    pub(crate) fn hold(&mut self, key: HeldKey, resources: &Resources, runs: bool, now: Millis) {
        if self.held.contains_key(&key) {
            return;
        }
        // Neighbours mostly want the same: one allocation serves them all.
        let shared = self
            .held
            .values()
            .next()
            .map(|known| &known.resources)
            .filter(|known| ***known == *resources)
            .map_or_else(|| Arc::new(resources.clone()), Arc::clone);
        let waits = !runs && placement::fits(resources, &self.free()) == 0;
        self.enter(
            key,
            Booking { resources: shared, work: None, waits, sent: true, since: now, asks: 0, arrived: true },
        );
    }

    /// Books an attempt that is about to be committed. True: it waits for those before it.
    pub(crate) fn book(&mut self, key: HeldKey, resources: &Arc<Resources>, work: Option<u64>) -> bool {
        let waits = placement::fits(resources, &self.free()) == 0;
        self.unanswered += u32::from(!self.pull);
        let resources = Arc::clone(resources);
        self.enter(key, Booking { resources, work, waits, sent: false, since: 0, asks: 0, arrived: false });
        waits
    }

    fn enter(&mut self, key: HeldKey, booking: Booking) {
        if booking.waits {
            self.ahead.enter(key, &booking);
        } else {
            placement::give(&mut self.used, &booking.resources);
            self.ahead.runs(&booking);
        }
        self.held.insert(key, booking);
    }

    /// Marks a booked attempt as launched. False: it is not to be launched, or was before.
    pub(crate) fn send(&mut self, key: &HeldKey, now: Millis) -> bool {
        let Some(booking) = self.held.get_mut(key).filter(|booking| !booking.sent) else { return false };
        booking.sent = true;
        booking.since = now;
        if booking.waits {
            self.ahead.sent(booking);
        }
        self.on_their_way += 1;
        true
    }

    /// The executor has the attempt.
    pub(crate) fn arrived(&mut self, key: &HeldKey) {
        if let Some(booking) = self.held.get_mut(key).filter(|booking| booking.is_on_its_way()) {
            booking.arrived = true;
            self.on_their_way -= 1;
        }
    }

    /// The executor has started it, though by our account it still waits.
    pub(crate) fn begun(&mut self, key: &HeldKey) {
        if let Some(booking) = self.held.get_mut(key).filter(|booking| booking.waits) {
            self.ahead.leave(key, booking);
            booking.waits = false;
            placement::give(&mut self.used, &booking.resources);
            self.ahead.runs(booking);
        }
    }

    /// False: it was not booked.
    pub(crate) fn release(&mut self, key: &HeldKey) -> bool {
        let Some(booking) = self.held.remove(key) else { return false };
        self.on_their_way -= u32::from(booking.is_on_its_way());
        self.leave(key, &booking);
        self.answered(u32::from(!booking.sent));
        self.go_on();
        true
    }

    pub(crate) fn release_where(&mut self, mut gone: impl FnMut(&HeldKey) -> bool) {
        let going: Vec<(HeldKey, Booking)> = self.held.extract_if(|key, _| gone(key)).collect();
        for (key, booking) in going {
            self.on_their_way -= u32::from(booking.is_on_its_way());
            self.leave(&key, &booking);
            self.answered(u32::from(!booking.sent));
        }
        self.go_on();
    }

    fn leave(&mut self, key: &HeldKey, booking: &Booking) {
        if booking.waits {
            self.ahead.leave(key, booking);
        } else {
            self.used = minus(&self.used, &booking.resources);
            self.ahead.ends(booking);
        }
    }

    /// Those who wait take what is free, in their order.
    pub(super) fn go_on(&mut self) {
        while let Some(next) = self.ahead.first() {
            let booking = self.held.get(&next).expect("who waits is booked");
            if placement::fits(&booking.resources, &self.left()) == 0 {
                return;
            }
            self.begun(&next);
        }
    }

    /// So many attempts are not on their way any more.
    pub(crate) fn answered(&mut self, count: u32) {
        if !self.pull {
            self.unanswered = self.unanswered.saturating_sub(count);
        }
    }

    /// An executor that keeps no account for each scheduler says what it has left, and how many attempts; what is neither
    /// free nor ours is somebody else's.
    pub(super) fn counted(&mut self, reported_free: &Resources, running: u32) {
        if !self.tells_account {
            self.foreign_running = running.saturating_sub(self.ours());
            self.foreign_is(reported_free, &self.used.clone());
        }
    }

    /// What is neither room for us nor ours is somebody else's, or owed to somebody else.
    pub(super) fn foreign_is(&mut self, room: &Resources, ours: &Resources) {
        self.foreign = minus(&minus(&self.total, room), ours);
        self.full_until = 0;
        self.go_on();
    }
}

/// Saturating, name by name of the left side.
fn minus(left: &Resources, right: &Resources) -> Resources {
    Resources {
        cpu_milli: left.cpu_milli.saturating_sub(right.cpu_milli),
        memory_bytes: left.memory_bytes.saturating_sub(right.memory_bytes),
        named: left
            .named
            .iter()
            .map(|(name, amount)| (name.clone(), amount.saturating_sub(right.named.get(name).copied().unwrap_or(0))))
            .collect(),
    }
}
