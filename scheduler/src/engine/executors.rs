//! What this scheduler knows of each executor: who it is, whether it can be reached, and what of its resources is in
//! use. Resources are booked when an attempt is assigned and freed when the executor says that the attempt is over,
//! however the job judges the report. The executor's own account is the truth; this one is for placing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_graph::execution::{AnswerScope, Event, TaskState};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};
use muster_graph::spec::Resources;
use muster_proto::v1;

use super::polls::WaitingPoll;
use super::{Engine, Output};
use crate::placement;

/// An attempt of a job.
pub(crate) type HeldKey = (JobId, TaskId, Attempt);

/// How an executor stands to this scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It has a session here.
    Home,
    /// It has a session at a peer.
    Peer,
    /// It has none that we know of.
    None,
    /// It was declared lost, or has stopped.
    Gone,
}

/// An executor is there.
#[derive(Debug)]
pub struct Registration {
    /// Who.
    pub key: ExecutorKey,
    /// `host:port` of its services.
    pub address: String,
    /// Whether it fetches its work.
    pub pull: bool,
    /// All that it offers.
    pub total: Resources,
    /// Free to use.
    pub labels: BTreeMap<String, String>,
    /// Its build.
    pub version: String,
    /// It takes no new work.
    pub draining: bool,
    /// Whether its session is at this scheduler.
    pub home_here: bool,
    /// Everything that it has and that is not settled. Known only if it registered here.
    pub held: Option<Vec<HeldKey>>,
}

/// See the module.
#[derive(Debug)]
pub struct Executor {
    /// Its newest life.
    pub key: ExecutorKey,
    /// `host:port`; empty: not known yet.
    pub address: String,
    /// Whether it fetches its work.
    pub pull: bool,
    /// All that it offers.
    pub total: Resources,
    /// What is left for placing: total, less ours, less what others use.
    pub free: Resources,
    /// Free to use.
    pub labels: BTreeMap<String, String>,
    /// Its build.
    pub version: String,
    /// It takes no new work.
    pub draining: bool,
    /// How it stands to us.
    pub link: Link,
    /// Since when `link` is what it is.
    pub(crate) since: Millis,
    /// Our attempts on it.
    pub(crate) held: HashMap<HeldKey, Arc<Resources>>,
    /// In use by others, by the executor's account.
    foreign: Resources,
    /// Attempts sent and not answered.
    pub(crate) unanswered: u32,
    /// It refused for lack of room: nothing more until it says what it has.
    full: bool,
    /// Jobs about which it must be asked, with the attempts in doubt when that became clear. What it is given later is
    /// no part of the question: the answer may have been on its way before the launch.
    pub(crate) ask: BTreeMap<JobId, BTreeSet<(TaskId, Attempt)>>,
    pub(crate) asking: bool,
    pub(crate) poll: Option<WaitingPoll>,
    pub(crate) newest_poll: u64,
    /// Launches and cancels for its next poll.
    pub(crate) to_fetch: v1::PollWorkResponse,
}

impl Executor {
    pub(crate) fn unheard_of(key: ExecutorKey, now: Millis) -> Self {
        Self {
            key,
            address: String::new(),
            pull: false,
            total: Resources::default(),
            free: Resources::default(),
            labels: BTreeMap::new(),
            version: String::new(),
            draining: false,
            link: Link::None,
            since: now,
            held: HashMap::new(),
            foreign: Resources::default(),
            unanswered: 0,
            full: false,
            ask: BTreeMap::new(),
            asking: false,
            poll: None,
            newest_poll: 0,
            to_fetch: v1::PollWorkResponse::default(),
        }
    }

    /// Attempts of this scheduler's jobs on it.
    #[must_use]
    pub fn running(&self) -> u32 {
        u32::try_from(self.held.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn is_reachable(&self) -> bool {
        !self.address.is_empty() && matches!(self.link, Link::Home | Link::Peer)
    }

    pub(crate) fn takes_work(&self) -> bool {
        let reachable = if self.pull { self.poll.is_some() } else { self.is_reachable() };
        reachable && !self.draining && !self.full
    }

    /// When something is due: it has been silent for too long, or out of reach for too long. `None`: neither.
    pub(crate) fn wakeup(&self, silent_after: Millis, lost_after: Millis) -> Option<Millis> {
        match self.link {
            Link::Home => Some(self.since + silent_after),
            Link::None => Some(self.since + lost_after),
            Link::Peer | Link::Gone => None,
        }
    }

    /// Nothing has been heard of it: it is out of reach.
    pub(crate) fn fell_silent(&mut self, now: Millis) {
        tracing::info!(executor = self.key.id, incarnation = self.key.incarnation, "executor is out of reach");
        self.link = Link::None;
        self.since = now;
        self.poll = None;
    }

    /// Whether this life of it has its session here.
    pub(crate) fn is_here(&self, key: &ExecutorKey) -> bool {
        self.key == *key && matches!(self.link, Link::Home | Link::None)
    }

    /// Whether there are jobs about which it has not answered.
    pub(crate) fn wants_asking(&self) -> bool {
        !self.ask.is_empty() && self.link != Link::Gone
    }

    pub(crate) fn hold(&mut self, key: HeldKey, resources: &Resources) {
        if self.held.contains_key(&key) {
            return;
        }
        // Neighbours mostly want the same: one allocation serves them all.
        let shared = self
            .held
            .values()
            .next()
            .filter(|known| ***known == *resources)
            .map_or_else(|| Arc::new(resources.clone()), Arc::clone);
        self.held.insert(key, shared);
        self.recount();
    }

    /// Books what placement has taken out of `free` already.
    pub(crate) fn book(&mut self, key: HeldKey, resources: &Arc<Resources>) {
        self.held.insert(key, Arc::clone(resources));
    }

    pub(crate) fn release(&mut self, key: &HeldKey) {
        if let Some(resources) = self.held.remove(key) {
            placement::give_back(&mut self.free, &resources, &self.total);
        }
    }

    pub(crate) fn release_where(&mut self, mut gone: impl FnMut(&HeldKey) -> bool) {
        let before = self.held.len();
        self.held.retain(|key, _| !gone(key));
        if self.held.len() != before {
            self.recount();
        }
    }

    fn used_by_us(&self) -> Resources {
        let mut used = Resources::default();
        for resources in self.held.values() {
            used.cpu_milli = used.cpu_milli.saturating_add(resources.cpu_milli);
            used.memory_bytes = used.memory_bytes.saturating_add(resources.memory_bytes);
            for (name, amount) in &resources.named {
                let sum = used.named.entry(name.clone()).or_default();
                *sum = sum.saturating_add(*amount);
            }
        }
        used
    }

    fn recount(&mut self) {
        self.free = minus(&minus(&self.total, &self.used_by_us()), &self.foreign);
    }

    /// The executor says what it has left; what is neither free nor ours is somebody else's.
    pub(super) fn account(&mut self, reported_free: &Resources) {
        self.foreign = minus(&minus(&self.total, reported_free), &self.used_by_us());
        self.full = false;
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

impl Engine {
    pub(super) fn registered(&mut self, registration: Registration, now: Millis) {
        let Registration { key, address, pull, total, labels, version, draining, home_here, held } = registration;
        let executor = self
            .executors
            .entry(key.id.clone())
            .or_insert_with(|| Executor::unheard_of(ExecutorKey { incarnation: 0, ..key.clone() }, now));
        if key.incarnation < executor.key.incarnation {
            tracing::warn!(executor = key.id, incarnation = key.incarnation, "an old life of an executor showed up");
            return;
        }
        let restarted = key.incarnation > executor.key.incarnation;
        if executor.address != address {
            self.addresses_revision += 1;
        }
        let connect = restarted || executor.address != address || !executor.is_reachable();
        executor.key = key.clone();
        executor.address.clone_from(&address);
        executor.pull = pull;
        executor.total = total;
        executor.labels = labels;
        executor.version = version;
        executor.draining = draining;
        executor.link = if home_here { Link::Home } else { Link::Peer };
        executor.since = now;
        executor.full = false;
        executor.asking = false;
        if restarted {
            executor.unanswered = 0;
            executor.newest_poll = 0;
            executor.foreign = Resources::default();
            executor.to_fetch = v1::PollWorkResponse::default();
        }
        executor.recount();
        if connect && !pull {
            self.outputs.push(Output::Connect { executor: key.clone(), address });
        }
        if let Some(held) = held {
            if restarted {
                self.earlier_lives_ended(&key, &held, now);
            }
            self.end_unwanted(&key, &held);
        } else if restarted {
            // It registered with a peer; only it can say what survived.
            self.ask_everything_of(&key.id);
        }
        self.ask_executors();
    }

    /// It restarted: of what its earlier lives were given, only what it lists has survived.
    fn earlier_lives_ended(&mut self, key: &ExecutorKey, held: &[HeldKey], now: Millis) {
        let mut by_job: BTreeMap<JobId, BTreeSet<(TaskId, Attempt)>> = BTreeMap::new();
        for &(job, task, attempt) in held {
            by_job.entry(job).or_default().insert((task, attempt));
        }
        let concerned: Vec<JobId> =
            self.jobs.values().filter(|job| job.graph.concerns(&key.id)).map(|job| job.id).collect();
        for job in concerned {
            let held = by_job.remove(&job).unwrap_or_default();
            if let Some(executor) = self.executors.get_mut(&key.id) {
                executor.release_where(|(id, task, attempt)| *id == job && !held.contains(&(*task, *attempt)));
            }
            let event = Event::ExecutorAnswered { by: key.clone(), held, scope: AnswerScope::EarlierIncarnations };
            self.apply(job, event, now);
        }
    }

    fn ask_everything_of(&mut self, id: &str) {
        let Some(executor) = self.executors.get_mut(id) else { return };
        for job in self.jobs.values().filter(|job| job.graph.concerns(id)) {
            executor.ask.insert(job.id, job.graph.holds(id).collect());
        }
    }

    /// Ends what an executor still holds of our jobs though nobody wants its result: a cancel may have been lost.
    pub(super) fn end_unwanted(&mut self, key: &ExecutorKey, held: &[HeldKey]) {
        for &(id, task, attempt) in held {
            let Some(job) = self.jobs.get(&id) else { continue };
            let wanted = job.graph.task(task).is_some_and(|state| {
                state.attempt == attempt
                    && matches!(state.state, TaskState::Assigned { .. } | TaskState::Running { .. })
            });
            if !wanted || job.graph.ends_attempts_of(task.stage) {
                self.send_cancel(key, id, task, attempt);
            }
        }
    }

    pub(super) fn heartbeat(&mut self, key: &ExecutorKey, free: &Resources, draining: bool, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        if executor.key != *key {
            return;
        }
        executor.link = Link::Home;
        executor.since = now;
        executor.draining = draining;
        executor.account(free);
    }

    pub(super) fn session_ended(&mut self, key: &ExecutorKey, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        if executor.key == *key && matches!(executor.link, Link::Home | Link::Peer) {
            executor.fell_silent(now);
        }
    }

    pub(super) fn lost(&mut self, key: &ExecutorKey, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        if executor.key.incarnation > key.incarnation {
            return;
        }
        tracing::warn!(executor = key.id, incarnation = key.incarnation, "executor is lost");
        executor.link = Link::Gone;
        executor.since = now;
        executor.poll = None;
        executor.ask.clear();
        executor.asking = false;
        executor.to_fetch = v1::PollWorkResponse::default();
        executor.release_where(|_| true);
        let concerned: Vec<JobId> =
            self.jobs.values().filter(|job| job.graph.concerns(&key.id)).map(|job| job.id).collect();
        for job in concerned {
            self.apply(job, Event::ExecutorLost { executor: key.clone() }, now);
        }
    }

    /// It refused for lack of room: our account of it was wrong.
    pub(super) fn mark_full(&mut self, id: &str) {
        if let Some(executor) = self.executors.get_mut(id) {
            executor.full = true;
        }
    }
}
