//! How the machine is divided among schedulers: the ledger of who has how much of it, and who is owed what becomes free.
//!
//! The executor keeps it because it alone knows: no store has to be asked or told, nothing in it outlives what it is about,
//! and whoever takes jobs over has what these have from the moment at which the executor hears of it
//! ([ADR 13](../../../docs/adr/0013-executors-keep-the-ledger.md)).
//!
//! A scheduler **reserves** room by having attempts wait here, or by saying that it has tasks for which it finds none. Those who reserve
//! get what is free in turns: the next is always for who has least of the machine then, for its weight, by dominant resource, and if it
//! does not fit yet, room gathers for it (max-min fairness by progressive filling). What falls to others is no room for oneself. Who
//! reserves nothing is in nobody's way, and without reservations everything free is everybody's: two that take the same at the
//! same time are told so by admission.
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

/// Turns that are thought through: more than there are cores, mostly, and little enough to be done for each launch.
const TURNS_MAX: usize = 1024;

/// How much a scheduler counts that has not said so.
const WEIGHT_DEFAULT: u32 = 1000;

/// Tasks for which a scheduler finds no room.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// Of one of them.
    pub(crate) need: Resources,
    /// How many.
    pub(crate) count: u32,
    /// How much its scheduler counts beside others.
    weight: u32,
    /// When it was told last.
    pub(crate) told: Instant,
    /// Since when there has been room for one of them.
    offered: Option<Instant>,
}

impl Reservation {
    /// `weight` as it is told: 0 is what is usual.
    pub(crate) fn of(need: Resources, (count, weight): (u32, u32), told: Instant) -> Self {
        let weight = if weight == 0 { WEIGHT_DEFAULT } else { weight };
        Self { need, count, weight, told, offered: None }
    }
}

/// What one scheduler has and wants here.
#[derive(Debug, Default)]
pub(super) struct Holder {
    /// What its attempts that do not wait have.
    used: Resources,
    /// Its attempts that wait, oldest first, with what they need.
    pub(super) queue: VecDeque<(AttemptKey, Arc<Resources>)>,
    reservation: Option<Reservation>,
    /// Attempts of its jobs that are not finished.
    unfinished: usize,
    /// As its last reservation said.
    weight: Option<u32>,
    /// Which of all shares that were given here its last one was. Of those who have equally little, who was given none for longest
    /// is next: otherwise a task that needs all of the machine would never find it empty.
    served: u64,
}

impl Holder {
    fn is_nothing(&self) -> bool {
        self.unfinished == 0 && self.reservation.is_none()
    }

    /// How much of the machine it has, for its weight.
    fn share(&self, total: &Resources) -> u64 {
        weighted(self.used.dominant_share(total), self.weight.unwrap_or(WEIGHT_DEFAULT))
    }

    /// What it reserves room for, one after the other.
    fn wants(&self) -> impl Iterator<Item = &Resources> {
        let reserved = self.reservation.iter();
        let reserved = reserved.flat_map(|told| std::iter::repeat_n(&told.need, told.count as usize));
        self.queue.iter().map(|(_, need)| &**need).chain(reserved)
    }
}

fn weighted(share: u64, weight: u32) -> u64 {
    u64::try_from(u128::from(share) * u128::from(WEIGHT_DEFAULT) / u128::from(weight)).unwrap_or(u64::MAX)
}

/// A scheduler that is given room in thought.
struct Turn<'a, W> {
    has: Resources,
    weight: u32,
    /// Who is next: the least of these.
    rank: (u64, u64, &'a str),
    wants: W,
}

impl<'a, W> Turn<'a, W> {
    fn new(name: &'a str, holder: Option<&Holder>, wants: W, total: &Resources) -> Self {
        let has = holder.map(|holder| holder.used.clone()).unwrap_or_default();
        let weight = holder.and_then(|holder| holder.weight).unwrap_or(WEIGHT_DEFAULT);
        let served = holder.map_or(0, |holder| holder.served);
        Self { rank: (weighted(has.dominant_share(total), weight), served, name), weight, has, wants }
    }

    fn takes(&mut self, need: &Resources, given: u64, total: &Resources) {
        self.has.add(need);
        self.rank = (weighted(self.has.dominant_share(total), self.weight), given, self.rank.2);
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Shares {
    holders: BTreeMap<Arc<str>, Holder>,
    /// Attempts that wait.
    waiting: usize,
    /// Shares given so far.
    given: u64,
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
        self.given += 1;
        let given = self.given;
        let holder = self.holder(scheduler);
        holder.served = given;
        holder.used.add(need);
        if let Some(reservation) = &mut holder.reservation {
            reservation.offered = None;
        }
    }

    pub(super) fn gives_back(&mut self, scheduler: &Arc<str>, need: &Resources) {
        self.holder(scheduler).used.subtract(need);
    }

    /// It waits for a share.
    pub(super) fn waits(&mut self, scheduler: &Arc<str>, key: AttemptKey, need: &Arc<Resources>) {
        self.holder(scheduler).queue.push_back((key, Arc::clone(need)));
        self.waiting += 1;
    }

    /// It does not wait any more. False: it did not.
    pub(super) fn stops_waiting(&mut self, scheduler: &str, key: AttemptKey) -> bool {
        let Some(holder) = self.holders.get_mut(scheduler) else { return false };
        let Some(place) = holder.queue.iter().position(|(waiting, _)| *waiting == key) else { return false };
        holder.queue.remove(place);
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

    /// What of `free` is there for a scheduler with tasks that need `one` each (`None`: unknown), however many.
    pub(super) fn room(
        &self,
        scheduler: &str,
        one: Option<&Resources>,
        free: Resources,
        total: &Resources,
    ) -> Resources {
        let others =
            self.holders.iter().filter(|(name, holder)| &***name != scheduler && holder.wants().next().is_some());
        let mut others: Vec<_> =
            others.map(|(name, holder)| Turn::new(name, Some(holder), holder.wants().peekable(), total)).collect();
        let smallest = others.iter_mut().filter_map(|turn| turn.wants.peek().copied()).min();
        let Some(smallest) = smallest else { return free };
        let holder = self.holders.get(scheduler);
        let told = holder.and_then(|holder| holder.reservation.as_ref()).map(|told| &told.need);
        let one = one.or(told).unwrap_or(smallest);
        let mut mine = Turn::new(scheduler, holder, (), total);
        let (mut room, mut left) = (Resources::default(), free);
        for given in (self.given + 1..).take(TURNS_MAX) {
            let Some(other) = others.iter_mut().min_by_key(|turn| turn.rank) else {
                // Nobody else wants what is left.
                room.add(&left);
                return room;
            };
            let is_mine = mine.rank < other.rank;
            let need = if is_mine { one } else { other.wants.peek().expect("who wants nothing is taken out") };
            if !left.has(need) {
                return room;
            }
            left.subtract(need);
            if is_mine {
                mine.takes(need, given, total);
                room.add(need);
            } else {
                other.takes(need, given, total);
                other.wants.next();
                others.retain_mut(|turn| turn.wants.peek().is_some());
            }
        }
        room
    }

    /// The oldest attempt that waits of each scheduler, of the one that has least first.
    fn first_of_each(&self, total: &Resources) -> Vec<(Arc<str>, AttemptKey, Arc<Resources>)> {
        let mut waiting: Vec<(&Arc<str>, &Holder)> = self.holders.iter().collect();
        waiting.sort_by_key(|(_, holder)| (holder.share(total), holder.served));
        let first = |(name, holder): (&Arc<str>, &Holder)| {
            holder.queue.front().map(|(key, need)| (Arc::clone(name), *key, Arc::clone(need)))
        };
        waiting.into_iter().filter_map(first).collect()
    }

    fn has_reservations(&self) -> bool {
        self.holders.values().any(|holder| holder.reservation.is_some())
    }
}

impl Table {
    /// A scheduler says for what it finds no room.
    pub(crate) fn reserve(&self, scheduler: &Arc<str>, reservation: Reservation) {
        let mut inside = self.inside();
        let holder = inside.shares.holder(scheduler);
        // Told once more, it is the same offer that was not taken yet.
        let offered = holder.reservation.as_ref().and_then(|known| known.offered);
        holder.weight = Some(reservation.weight);
        holder.reservation = Some(Reservation { offered, ..reservation });
        // It may be less than before.
        inside.let_go_on();
        self.room_may_have_changed(&inside);
    }

    /// It reserves nothing any more, unless that was told again since.
    pub(crate) fn end_reservation(&self, scheduler: &Arc<str>, told: Instant) {
        let mut inside = self.inside();
        let Some(holder) = inside.shares.holders.get_mut(scheduler) else { return };
        if holder.reservation.take_if(|known| known.told <= told).is_some() {
            inside.shares.forget_if_nothing(scheduler);
            inside.let_go_on();
            self.room_may_have_changed(&inside);
        }
    }

    /// What there is for a scheduler.
    pub(crate) fn account_for(&self, scheduler: &str) -> v1::Account {
        self.inside().account_for(scheduler)
    }

    /// The account for a scheduler if there is room for what it reserves. A reservation that has had its time ends by this. `Err`: it
    /// reserves nothing (any more).
    pub(crate) fn offer(&self, scheduler: &Arc<str>, now: Instant) -> Result<Option<v1::Account>, ()> {
        let mut inside = self.inside();
        let room = inside.room(scheduler, None);
        let Some(holder) = inside.shares.holders.get_mut(scheduler) else { return Err(()) };
        let Some(reservation) = &mut holder.reservation else { return Err(()) };
        let fits = room.has(&reservation.need);
        reservation.offered = if fits { reservation.offered.or(Some(now)) } else { None };
        let had_time = reservation.offered.is_some_and(|since| now >= since + OFFER_LIVES)
            || now >= reservation.told + RESERVATION_LIVES;
        if had_time {
            let told = reservation.told;
            drop(inside);
            self.end_reservation(scheduler, told);
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
            } else if inside.shares.stops_waiting(&former, key) {
                inside.shares.waits(scheduler, key, &need);
            }
            inside.shares.leaves(&former);
        }
        inside.let_go_on();
        self.room_may_have_changed(inside);
    }

    /// Those who reserve room look again.
    pub(super) fn room_may_have_changed(&self, inside: &Inside) {
        if inside.shares.has_reservations() {
            self.room_changed.send_replace(());
        }
    }
}

impl Inside {
    /// What there is for a scheduler with tasks that need this each.
    pub(super) fn room(&self, scheduler: &str, one: Option<&Resources>) -> Resources {
        self.shares.room(scheduler, one, self.account.free(), self.account.total())
    }

    fn account_for(&self, scheduler: &str) -> v1::Account {
        let holder = self.shares.holders.get(scheduler);
        let others = self.unfinished - holder.map_or(0, |holder| holder.unfinished);
        v1::Account {
            room: Some(self.room(scheduler, None).to_wire()),
            yours: Some(holder.map(|holder| holder.used.to_wire()).unwrap_or_default()),
            others: u32::try_from(others).unwrap_or(u32::MAX),
        }
    }

    /// Whether an attempt of the group would not have to wait: neither behind its own scheduler's, nor for room.
    pub(super) fn has_room(&self, group: &Group) -> bool {
        let queue_is_empty = self.shares.holders.get(&group.owner_address).is_none_or(|holder| holder.queue.is_empty());
        // Nobody overtakes who comes first: otherwise small tasks would starve a large one.
        queue_is_empty && self.room(&group.owner_address, Some(&group.need)).has(&group.need)
    }

    /// Gives those who wait their share as far as there is room: the scheduler that has least first, of each one in its order.
    /// Nobody overtakes who comes first by that: what that one needs is no room for others.
    pub(super) fn let_go_on(&mut self) {
        while self.shares.waiting > 0 {
            let mut waiting = self.shares.first_of_each(self.account.total()).into_iter();
            let next = waiting.find(|(scheduler, _, need)| self.room(scheduler, Some(need)).has(need));
            let Some((scheduler, key, need)) = next else { return };
            let entry = self.entries.get_mut(&key).expect("who waits is in the table");
            entry.share = Some(self.account.take(&need).expect("there is room"));
            entry.control.go.cancel();
            self.shares.stops_waiting(&scheduler, key);
            self.shares.takes(&scheduler, &need);
        }
    }
}

#[cfg(test)]
#[path = "shares_tests.rs"]
mod tests;
