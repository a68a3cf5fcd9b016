//! What of an executor's resources this scheduler has given away. Booked when an attempt is assigned, freed when the
//! executor says that the attempt is over, however the job judges the report. The executor's own account is the truth;
//! this one is for placing.
//!
//! **Invariant:** an attempt is launched if and only if its booking is there and was not sent before. Whatever removes
//! a booking that was not sent (the job was dropped, the executor is lost) gives its place in the window back.

use std::sync::Arc;

use muster_graph::spec::Resources;

use super::executors::{Executor, HeldKey};
use crate::placement;

/// An attempt's share of an executor.
#[derive(Debug)]
pub(crate) struct Booking {
    resources: Arc<Resources>,
    /// Its launch has left, which it may only once its assignment is committed.
    pub(crate) sent: bool,
    /// The executor has shown that the launch arrived.
    arrived: bool,
}

impl Booking {
    /// Its launch has left, and may have been lost on the way.
    fn is_on_its_way(&self) -> bool {
        self.sent && !self.arrived
    }
}

impl Executor {
    /// Books an attempt that an owner before us, or an earlier copy of the job, had committed.
    pub(crate) fn hold(&mut self, key: HeldKey, resources: &Resources) {
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
        self.held.insert(key, Booking { resources: shared, sent: true, arrived: true });
        self.recount();
    }

    /// Books an attempt that is about to be committed.
    pub(crate) fn book(&mut self, key: HeldKey, resources: &Arc<Resources>) {
        placement::take(&mut self.free, resources, 1);
        self.unanswered += u32::from(!self.pull);
        self.held.insert(key, Booking { resources: Arc::clone(resources), sent: false, arrived: false });
    }

    /// Marks a booked attempt as launched. False: it is not to be launched, or was before.
    pub(crate) fn send(&mut self, key: &HeldKey) -> bool {
        let Some(booking) = self.held.get_mut(key).filter(|booking| !booking.sent) else { return false };
        booking.sent = true;
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

    pub(crate) fn release(&mut self, key: &HeldKey) {
        if let Some(booking) = self.held.remove(key) {
            placement::give_back(&mut self.free, &booking.resources, &self.total);
            self.on_their_way -= u32::from(booking.is_on_its_way());
            if !booking.sent {
                self.answered(1);
            }
        }
    }

    pub(crate) fn release_where(&mut self, mut gone: impl FnMut(&HeldKey) -> bool) {
        let (before, mut unsent, mut on_their_way) = (self.held.len(), 0, 0);
        self.held.retain(|key, booking| {
            let stays = !gone(key);
            unsent += u32::from(!stays && !booking.sent);
            on_their_way += u32::from(stays && booking.is_on_its_way());
            stays
        });
        self.on_their_way = on_their_way;
        if self.held.len() != before {
            self.answered(unsent);
            self.recount();
        }
    }

    /// So many attempts are not on their way any more.
    pub(crate) fn answered(&mut self, count: u32) {
        if !self.pull {
            self.unanswered = self.unanswered.saturating_sub(count);
        }
    }

    fn used_by_us(&self) -> Resources {
        let mut used = Resources::default();
        for booking in self.held.values() {
            let resources = &booking.resources;
            used.cpu_milli = used.cpu_milli.saturating_add(resources.cpu_milli);
            used.memory_bytes = used.memory_bytes.saturating_add(resources.memory_bytes);
            for (name, amount) in &resources.named {
                let sum = used.named.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
        used
    }

    pub(super) fn recount(&mut self) {
        self.free = minus(&minus(&self.total, &self.used_by_us()), &self.foreign);
    }

    /// The executor says what it has left; what is neither free nor ours is somebody else's.
    pub(super) fn account(&mut self, reported_free: &Resources) {
        self.foreign = minus(&minus(&self.total, reported_free), &self.used_by_us());
        self.full_until = 0;
        self.recount();
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
