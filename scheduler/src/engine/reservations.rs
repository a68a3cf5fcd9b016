//! Room reserved at executors that others use, too. Each executor keeps the ledger of who has how much of it, and gives what
//! becomes free to who has least of those who ask ([ADR 13](../../../docs/adr/0013-executors-keep-the-ledger.md)); here
//! is decided what to ask of whom. It is asked when tasks have found no room for a while, and taken back at once when none are left;
//! as long as that does not change nothing is said. Executors in pull mode are not asked: their polls make the rounds.
//!
//! **Invariant:** a reservation decides nothing. What an executor has for this scheduler is what it said last, and whether it
//! takes a task is its word when that comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_graph::ids::{JobId, Millis, StageIndex};
use muster_graph::spec::{Placing, Resources};
use muster_proto::v1;

use super::executors::Executor;
use super::{Engine, Output};
use crate::placement;

/// Tasks that find room sooner are not worth a message.
const PATIENCE_MS: Millis = 20;
/// So often it is thought over what to ask of whom.
const LOOK_AGAIN_MS: Millis = 250;
/// An executor forgets what is not repeated.
const REPEAT_MS: Millis = 2_000;
/// Demands for which room is asked: those that are owed most, of those that fit anywhere.
const DEMANDS_MAX: usize = 64;
/// A task that needs no more than this part of an executor is small: what it waits for becomes free by one end or a few.
const SMALL_PART: u32 = 4;
/// For each small task room is reserved at so many executors, as nobody knows which one has some first. For a large one, at as
/// few as can be: they stand empty while room for it gathers.
const EXECUTORS_PER_SMALL_TASK: u32 = 8;

/// What was told to an executor.
#[derive(Debug)]
struct Told {
    need: Resources,
    count: u32,
    weight: u32,
    at: Millis,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// Since when tasks find no room.
    since: Option<Millis>,
    look_at: Millis,
    told: BTreeMap<String, Told>,
}

impl Reservations {
    /// When they are to be thought over. `None`: everything has its place.
    pub(super) fn look_at(&self) -> Option<Millis> {
        self.since.map(|since| self.look_at.max(since + PATIENCE_MS))
    }
}

impl Executor {
    /// What it has for this scheduler, as it says.
    pub(super) fn accounted(&mut self, account: &v1::Account) {
        let of = |part: &Option<v1::Resources>| part.as_ref().map(Resources::from).unwrap_or_default();
        self.tells_account = true;
        self.foreign_running = account.others;
        self.foreign_is(&of(&account.room), &of(&account.yours));
    }

    fn may_reserve(&self) -> bool {
        !self.pull && self.hears() && !self.draining && self.quarantine().is_none()
    }
}

impl Engine {
    pub(super) fn account(&mut self, by: &muster_graph::ids::ExecutorKey, account: &v1::Account) {
        if let Some(executor) = self.executors.get_mut(&by.id).filter(|executor| executor.key == *by) {
            executor.accounted(account);
        }
    }

    /// Asks for room for what has found none.
    pub(super) fn reserve(&mut self, now: Millis) {
        if self.queues.is_empty() || self.schedulers_sharing() < 2 {
            self.reservations.since = None;
            for executor in std::mem::take(&mut self.reservations.told).into_keys() {
                self.tell_reservation(&executor, None);
            }
            return;
        }
        let since = *self.reservations.since.get_or_insert(now);
        if now < self.reservations.look_at.max(since + PATIENCE_MS) {
            return;
        }
        self.reservations.look_at = now + LOOK_AGAIN_MS;
        let wanted = self.reservations_wanted(now);
        let weight = self.queues.weight();
        let before = std::mem::take(&mut self.reservations.told);
        for gone in before.keys().filter(|executor| !wanted.contains_key(*executor)) {
            self.tell_reservation(gone, None);
        }
        for (executor, (need, count)) in wanted {
            let same = |known: &&Told| (&known.need, known.count, known.weight) == (&need, count, weight);
            let known = before.get(&executor).filter(same);
            let at = match known.filter(|known| now < known.at + REPEAT_MS) {
                Some(known) => known.at,
                None => {
                    self.tell_reservation(&executor, Some((&need, count, weight)));
                    now
                }
            };
            self.reservations.told.insert(executor, Told { need, count, weight, at });
        }
    }

    /// For each executor that is to be asked: for how many tasks of which need.
    fn reservations_wanted(&self, now: Millis) -> BTreeMap<String, (Resources, u32)> {
        let mut open: Vec<&Executor> = self.executors.values().filter(|executor| executor.may_reserve()).collect();
        // Where it gathers already, and then where most is left, there is room soonest.
        let kept = &self.room_gathers.places;
        open.sort_by_key(|executor| {
            (!kept.contains_key(&executor.key.id), std::cmp::Reverse(executor.left().cpu_milli))
        });
        let mut wanted = BTreeMap::new();
        // Demands like one before that fitted nowhere are passed over: they are nobody's competitors.
        let mut nowhere: HashMap<Placing<'_>, BTreeSet<&Resources>> = HashMap::new();
        let mut found = 0;
        for (id, stage) in self.most_owed(now) {
            if found == DEMANDS_MAX || open.is_empty() {
                break;
            }
            let graph = &self.jobs[&id].graph;
            let (need, placing) = (&graph.plan().stages[stage.0 as usize].resources, graph.plan().placing(stage));
            let count = graph.ready_count(stage);
            if nowhere.get(&placing).is_some_and(|same| same.contains(need)) {
                continue;
            }
            let before = open.len();
            let mut left = count;
            let mut small = count.saturating_mul(EXECUTORS_PER_SMALL_TASK);
            open.retain(|executor| {
                let most = placement::fits(need, &executor.total);
                let is_small = most >= SMALL_PART;
                let may_run = most > 0 && placing.rank(&executor.labels).is_some();
                if !may_run || (if is_small { small == 0 } else { left == 0 }) {
                    return true;
                }
                wanted.insert(executor.key.id.clone(), (need.clone(), most.min(count)));
                small = small.saturating_sub(1);
                left = left.saturating_sub(most);
                false
            });
            match open.len() < before {
                true => found += 1,
                false => drop(nowhere.entry(placing).or_default().insert(need)),
            }
        }
        wanted
    }

    /// Ready tasks in the order in which they are owed: each namespace has its turns, as if what is asked for were given.
    fn most_owed(&self, now: Millis) -> impl Iterator<Item = (JobId, StageIndex)> + '_ {
        let mut turns = self.turns();
        let rounds = std::iter::from_fn(move || {
            let round = self.next_round(&mut turns, now, |_, _| true)?;
            round.wanted.iter().for_each(|wanted| self.think_given(&mut turns, &round, *wanted));
            Some(round.wanted)
        });
        rounds.flatten().map(|(job, stage, _)| (job, stage))
    }

    fn tell_reservation(&mut self, id: &str, reserved: Option<(&Resources, u32, u32)>) {
        let Some(executor) = self.executors.get(id) else { return };
        let reservation = v1::Reservation {
            scheduler: self.identity.address.clone(),
            need: reserved.map(|(need, ..)| need.into()),
            count: reserved.map_or(0, |(_, count, _)| count),
            weight: reserved.map_or(0, |(.., weight)| weight),
        };
        self.outputs.push(Output::Reserve { executor: executor.key.clone(), reservation });
    }
}
