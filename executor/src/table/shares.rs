//! How the machine is divided among schedulers: the ledger of who has how much of it, and who is owed what becomes free.
//!
//! The executor keeps it because it alone knows: no store has to be asked or told, nothing in it outlives what it is about,
//! and whoever takes jobs over has what these have from the moment at which the executor hears of it
//! ([ADR 13](../../../docs/adr/0013-executors-keep-the-ledger.md)).
//!
//! A scheduler **reserves** room by having attempts wait here, or by saying that it has tasks for which it finds none. What is free
//! is for the reserver that has the least of the machine, by dominant resource; for the others it is not there. Who reserves
//! nothing is in nobody's way, and without reservations everything free is everybody's: two that take the same at the same time are
//! told so by admission.
//!
//! **Invariant:** a reservation does not hold up others for ever. It ends with the stream that brought it, if it is not repeated
//! for [`RESERVATION_LIVES`], or if there was room for it for [`OFFER_LIVES`] and it was not taken.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::time::Instant;

use super::{Inside, Table};
use crate::group::Group;
use crate::keys::AttemptKey;
use crate::resources::Resources;

/// Schedulers repeat a reservation every two seconds.
const RESERVATION_LIVES: Duration = Duration::from_secs(5);
/// Room that is offered and not taken for so long, in spite of a slow store, is not wanted.
const OFFER_LIVES: Duration = Duration::from_millis(500);

/// Tasks for which a scheduler finds no room.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// Of one of them.
    pub(crate) need: Resources,
    /// How many.
    pub(crate) count: u32,
    /// When it was told last.
    pub(crate) told: Instant,
    /// Since when there has been room for one of them.
    offered: Option<Instant>,
}

impl Reservation {
    pub(crate) fn of(need: Resources, count: u32, told: Instant) -> Self {
        Self { need, count, told, offered: None }
    }
}

/// What one scheduler has and wants here.
#[derive(Debug, Default)]
pub(super) struct Holder {
    /// What its attempts that do not wait have.
    used: Resources,
    /// Its attempts that wait, oldest first.
    pub(super) queue: VecDeque<AttemptKey>,
    /// What these need, all together.
    waiting: Resources,
    reservation: Option<Reservation>,
    /// Attempts of its jobs that are not finished.
    unfinished: usize,
}

impl Holder {
    fn is_nothing(&self) -> bool {
        self.unfinished == 0 && self.reservation.is_none()
    }

    fn reserves(&self) -> bool {
        !self.queue.is_empty() || self.reservation.is_some()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Shares {
    holders: BTreeMap<Arc<str>, Holder>,
    /// Attempts that wait.
    waiting: usize,
}

impl Shares {
    /// Attempts that wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn holder(&mut self, scheduler: &Arc<str>) -> &mut Holder {
        self.holders.entry(Arc::clone(scheduler)).or_default()
    }

    /// An attempt of the scheduler's is here.
    pub(super) fn enters(&mut self, scheduler: &Arc<str>) {
        self.holder(scheduler).unfinished += 1;
    }

    /// It has its share.
    pub(super) fn takes(&mut self, scheduler: &Arc<str>, need: &Resources) {
        let holder = self.holder(scheduler);
        holder.used.add(need, 1);
        if let Some(reservation) = &mut holder.reservation {
            reservation.offered = None;
        }
    }

    pub(super) fn gives_back(&mut self, scheduler: &Arc<str>, need: &Resources) {
        self.holder(scheduler).used.subtract(need);
    }

    /// It waits for a share.
    pub(super) fn waits(&mut self, scheduler: &Arc<str>, key: AttemptKey, need: &Resources) {
        let holder = self.holder(scheduler);
        holder.queue.push_back(key);
        holder.waiting.add(need, 1);
        self.waiting += 1;
    }

    /// It does not wait any more. False: it did not.
    pub(super) fn stops_waiting(&mut self, scheduler: &Arc<str>, key: AttemptKey, need: &Resources) -> bool {
        let holder = self.holder(scheduler);
        let Some(place) = holder.queue.iter().position(|waiting| *waiting == key) else { return false };
        holder.queue.remove(place);
        holder.waiting.subtract(need);
        self.waiting -= 1;
        true
    }

    /// An attempt of the scheduler's is finished.
    pub(super) fn leaves(&mut self, scheduler: &Arc<str>) {
        self.holder(scheduler).unfinished -= 1;
        self.forget_if_nothing(scheduler);
    }

    fn forget_if_nothing(&mut self, scheduler: &Arc<str>) {
        if self.holders.get(scheduler).is_some_and(Holder::is_nothing) {
            self.holders.remove(scheduler);
        }
    }

    /// What of `free` is there for a scheduler: what is owed to others is not.
    pub(super) fn room(&self, scheduler: &str, mut free: Resources, total: &Resources) -> Resources {
        let mine = self.holders.get(scheduler).map_or(0, |holder| holder.used.dominant_share(total));
        let reservers = self.holders.iter().filter(|(name, holder)| &***name != scheduler && holder.reserves());
        for (_, holder) in reservers.filter(|(_, holder)| holder.used.dominant_share(total) < mine) {
            free.subtract(&holder.waiting);
            if let Some(reservation) = &holder.reservation {
                let mut reserved = Resources::default();
                reserved.add(&reservation.need, reservation.count);
                free.subtract(&reserved);
            }
        }
        free
    }

    /// The oldest attempt that waits of each scheduler, of the one that has least first.
    fn first_of_each(&self, total: &Resources) -> Vec<(Arc<str>, AttemptKey)> {
        let waiting = self.holders.iter().filter_map(|(name, holder)| Some((name, holder, *holder.queue.front()?)));
        let mut waiting: Vec<_> =
            waiting.map(|(name, holder, key)| (holder.used.dominant_share(total), Arc::clone(name), key)).collect();
        waiting.sort();
        waiting.into_iter().map(|(_, name, key)| (name, key)).collect()
    }

    fn has_reservations(&self) -> bool {
        self.holders.values().any(|holder| holder.reservation.is_some())
    }
}

impl Table {
    /// A scheduler says for what it finds no room; `None`: for nothing.
    pub(crate) fn set_reservation(&self, scheduler: &Arc<str>, reservation: Option<Reservation>) {
        let mut inside = self.inside();
        let holder = inside.shares.holder(scheduler);
        // Told once more, it is the same offer that was not taken yet.
        let offered = holder.reservation.as_ref().and_then(|known| known.offered);
        holder.reservation = reservation.map(|reservation| Reservation { offered, ..reservation });
        inside.shares.forget_if_nothing(scheduler);
        inside.let_go_on();
        self.room_may_have_changed(&inside);
    }

    /// What there is for a scheduler.
    pub(crate) fn account_for(&self, scheduler: &str) -> v1::Account {
        self.inside().account_for(scheduler)
    }

    /// The account for a scheduler if there is room for what it reserves. A reservation that has had its time ends by this. `Err`: it
    /// reserves nothing (any more).
    pub(crate) fn offer(&self, scheduler: &Arc<str>, now: Instant) -> Result<Option<v1::Account>, ()> {
        let mut inside = self.inside();
        let room = inside.room(scheduler);
        let Some(holder) = inside.shares.holders.get_mut(scheduler) else { return Err(()) };
        let Some(reservation) = &mut holder.reservation else { return Err(()) };
        let fits = room.has(&reservation.need);
        reservation.offered = if fits { reservation.offered.or(Some(now)) } else { None };
        let had_time = reservation.offered.is_some_and(|since| now >= since + OFFER_LIVES)
            || now >= reservation.told + RESERVATION_LIVES;
        if had_time {
            holder.reservation = None;
            inside.shares.forget_if_nothing(scheduler);
            inside.let_go_on();
            self.room_may_have_changed(&inside);
            return Err(());
        }
        Ok(fits.then(|| inside.account_for(scheduler)))
    }

    /// A job is another scheduler's now: so is what it has here.
    pub(crate) fn owner_is(&self, job: JobId, scheduler: &Arc<str>) {
        let mut guard = self.inside();
        let inside = &mut *guard;
        let mut moved = Vec::new();
        let first = AttemptKey { job, stage: 0, index: 0, attempt: 0 };
        for (key, entry) in inside.entries.range_mut(first..).take_while(|(key, _)| key.job == job) {
            if entry.is_unfinished() && entry.holder != *scheduler {
                let former = std::mem::replace(&mut entry.holder, Arc::clone(scheduler));
                moved.extend(
                    entry.group.as_ref().map(|group| (*key, former, Arc::clone(&group.need), entry.share.is_some())),
                );
            }
        }
        for (key, former, need, holds) in moved {
            inside.shares.enters(scheduler);
            if holds {
                inside.shares.gives_back(&former, &need);
                inside.shares.takes(scheduler, &need);
            } else if inside.shares.stops_waiting(&former, key, &need) {
                inside.shares.waits(scheduler, key, &need);
            }
            inside.shares.leaves(&former);
        }
        inside.let_go_on();
        self.room_may_have_changed(inside);
    }

    /// Those who reservation room look again.
    pub(super) fn room_may_have_changed(&self, inside: &Inside) {
        if inside.shares.has_reservations() {
            self.room_changed.send_replace(());
        }
    }
}

impl Inside {
    pub(super) fn room(&self, scheduler: &str) -> Resources {
        self.shares.room(scheduler, self.account.free(), self.account.total())
    }

    fn account_for(&self, scheduler: &str) -> v1::Account {
        let holder = self.shares.holders.get(scheduler);
        let others = self.unfinished - holder.map_or(0, |holder| holder.unfinished);
        v1::Account {
            room: Some(self.room(scheduler).to_wire()),
            yours: Some(holder.map(|holder| holder.used.to_wire()).unwrap_or_default()),
            others: u32::try_from(others).unwrap_or(u32::MAX),
        }
    }

    /// Whether an attempt of the group would not have to wait: neither behind its own scheduler's, nor for room.
    pub(super) fn has_room(&self, group: &Group) -> bool {
        let queue_is_empty = self.shares.holders.get(&group.owner_address).is_none_or(|holder| holder.queue.is_empty());
        // Nobody overtakes who comes first: otherwise small tasks would starve a large one.
        queue_is_empty && self.room(&group.owner_address).has(&group.need)
    }

    /// Gives those who wait their share as far as there is room: the scheduler that has least first, of each one in its order.
    /// Nobody overtakes who comes first by that: what that one needs is no room for others.
    pub(super) fn let_go_on(&mut self) {
        while self.shares.waiting > 0 {
            let mut waiting = self.shares.first_of_each(self.account.total()).into_iter();
            let Some((scheduler, key)) = waiting.find(|(scheduler, key)| self.room(scheduler).has(self.need(*key)))
            else {
                return;
            };
            let entry = self.entries.get_mut(&key).expect("who waits is in the table");
            let need = Arc::clone(&entry.group.as_ref().expect("who waits was launched in this life").need);
            entry.share = Some(self.account.take(&need).expect("there is room"));
            entry.control.go.cancel();
            self.shares.stops_waiting(&scheduler, key, &need);
            self.shares.takes(&scheduler, &need);
        }
    }

    fn need(&self, key: AttemptKey) -> &Resources {
        let group = self.entries.get(&key).and_then(|entry| entry.group.as_ref());
        &group.expect("who waits was launched in this life").need
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
