//! What this scheduler knows of each executor: who it is, whether it can be reached, and how that changes.
//!
//! **Invariant:** what is heard of an executor's record is taken in the order of the record's revisions, whichever way
//! it comes: a registration here, the watch, or a loss that this scheduler declared itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use muster_graph::execution::{AnswerScope, Event, TaskState};
use muster_graph::ids::{Attempt, ExecutorKey, JobId, Millis, TaskId};
use muster_graph::spec::Resources;
use muster_proto::v1;
use muster_state::Revision;

use super::account::Booking;
use super::ahead::Ahead;
use super::launch::Which;
use super::losses::TELL_AFTER_MS;
use super::polls::WaitingPoll;
use super::quarantine::Opinion;
use super::takeover::Doubt;
use super::{Engine, Output};

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
    /// The session of the scheduler that is its home, as its record says.
    pub home: String,
    /// The revision of its record.
    pub record: Revision,
    /// How many attempts, of all schedulers together, may wait there.
    pub backlog: u32,
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
    /// What our attempts there use: those that do not wait.
    pub(super) used: Resources,
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
    /// Since when no scheduler is known to hold its session.
    pub(super) away_since: Option<Millis>,
    /// Gone for good: it has stopped, or an operator said so.
    pub(super) is_final: bool,
    /// What was on its way to it will not arrive: it has to register, and is asked what it has.
    pub(super) is_severed: bool,
    /// When its record is to say that it has no session here any more.
    pub(super) tell_at: Option<Millis>,
    /// Our attempts on it.
    pub(crate) held: HashMap<HeldKey, Booking>,
    /// In use by others or owed to them, by the executor's account.
    pub(super) foreign: Resources,
    /// It says what it has for this scheduler, and not only what it has left.
    pub(super) tells_account: bool,
    /// And how many attempts of others it has.
    pub(super) foreign_running: u32,
    /// Ours that wait there, and how many may.
    pub(super) ahead: Ahead,
    pub(super) opinion: Opinion,
    /// Attempts assigned or sent, and not answered.
    pub(crate) unanswered: u32,
    /// Attempts whose launch has left and of which it has shown nothing yet.
    pub(crate) on_their_way: u32,
    /// It refused for lack of room: nothing more until then, or until it says what it has.
    pub(super) full_until: Millis,
    /// The session of its home, and the revision of the record that says so.
    pub(super) home: String,
    pub(crate) record: Revision,
    /// The life and address that launches are sent to.
    pub(super) linked: Option<(u64, String)>,
    /// Since when the straight way there is broken, or not open yet.
    pub(super) unreached_since: Option<Millis>,
    /// Launches go through its home meanwhile.
    pub(super) through_home: bool,
    /// Jobs about which it must be asked.
    pub(crate) ask: BTreeMap<JobId, Doubt>,
    /// The question under way.
    pub(crate) asking: Option<u64>,
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
            used: Resources::default(),
            labels: BTreeMap::new(),
            version: String::new(),
            draining: false,
            link: Link::None,
            since: now,
            away_since: Some(now),
            is_final: false,
            is_severed: false,
            tell_at: None,
            held: HashMap::new(),
            foreign: Resources::default(),
            tells_account: false,
            foreign_running: 0,
            ahead: Ahead::default(),
            opinion: Opinion::default(),
            unanswered: 0,
            on_their_way: 0,
            full_until: 0,
            home: String::new(),
            record: 0,
            linked: None,
            unreached_since: None,
            through_home: false,
            ask: BTreeMap::new(),
            asking: None,
            poll: None,
            newest_poll: 0,
            to_fetch: v1::PollWorkResponse::default(),
        }
    }

    /// Whether this session is its home, as its record says.
    pub(crate) fn is_at_home(&self, session: &str) -> bool {
        self.home == session && self.link != Link::Gone
    }

    /// When something is due: it has been silent for too long, its record is to say so, or it has been out of reach for
    /// too long. `None`: none of that.
    pub(crate) fn wakeup(&self, silent_after: Millis, lost_after: Millis) -> Option<Millis> {
        match self.link {
            Link::Home => Some(self.since.min(self.unreached_since.unwrap_or(Millis::MAX)) + silent_after),
            Link::None => Some(self.tell_at.unwrap_or(Millis::MAX).min(self.since + lost_after)),
            Link::Peer | Link::Gone => None,
        }
    }

    /// Whether this life of it has its session here. Once its record says otherwise, or what it had was given up, it
    /// has to register.
    pub(crate) fn is_here(&self, key: &ExecutorKey) -> bool {
        let may_go_on = match self.link {
            Link::Home => true,
            Link::None => !self.home.is_empty() && !self.is_severed,
            Link::Peer | Link::Gone => false,
        };
        self.key == *key && may_go_on
    }
}

impl Engine {
    pub(super) fn registered(&mut self, registration: Registration, now: Millis) {
        let backlog = registration.backlog;
        let Registration {
            key, address, pull, total, labels, version, draining, home_here, home, record, held, ..
        } = registration;
        // A record that names this scheduler says less than a session here does, and more than nothing: whoever
        // registered here may have gone before this scheduler's word of it came.
        let without_session = !home_here && home == self.identity.session.0;
        let link = match home_here {
            true => Link::Home,
            false if without_session => Link::None,
            false if self.live_schedulers.contains(&home) => Link::Peer,
            // Whose end was not heard of, lives.
            false if record > self.schedulers_as_of && !home.is_empty() => Link::Peer,
            false => Link::None,
        };
        let concerned = self.jobs.values().any(|job| job.graph.concerns(&key.id));
        let executor = self
            .executors
            .entry(key.id.clone())
            .or_insert_with(|| Executor::unheard_of(ExecutorKey { incarnation: 0, ..key.clone() }, now));
        if record < executor.record {
            tracing::debug!(executor = key.id, record, known = executor.record, "an old record of an executor");
            return;
        }
        if key.incarnation < executor.key.incarnation {
            tracing::warn!(executor = key.id, incarnation = key.incarnation, "an old life of an executor showed up");
            return;
        }
        if without_session && executor.key == key && (executor.link == Link::Home || record == executor.record) {
            return;
        }
        let restarted = key.incarnation > executor.key.incarnation;
        let news = record > executor.record;
        if executor.address != address && concerned {
            self.addresses_revision += 1;
        }
        executor.key = key.clone();
        executor.address.clone_from(&address);
        executor.pull = pull;
        executor.total = total;
        executor.labels = labels;
        executor.version = version;
        executor.draining = draining;
        executor.ahead.most = backlog;
        (executor.home, executor.record) = (home, record);
        if link != Link::None {
            executor.is_back(link, now);
        } else if executor.link != Link::None || news {
            // It had a home when this was written, though that is gone too.
            executor.away_since = None;
            executor.go_away(link, now);
            executor.tell_at = without_session.then_some(now + TELL_AFTER_MS);
        } else {
            // To hear once more that it has no home does not begin its absence anew.
            executor.tell_at = None;
        }
        executor.full_until = 0;
        executor.asking = None;
        if restarted {
            executor.unanswered = 0;
            (executor.newest_poll, executor.opinion) = (0, Opinion::default());
            executor.ask.values_mut().for_each(|doubt| doubt.poll = None);
            (executor.foreign, executor.foreign_running, executor.tells_account) = (Resources::default(), 0, false);
            executor.to_fetch = v1::PollWorkResponse::default();
        }
        executor.go_on();
        let way = (!pull).then(|| (key.incarnation, address.clone()));
        let mut way_lost = false;
        if executor.linked != way {
            // What was on its way to the same life by the former link may not have arrived.
            way_lost = executor.linked.as_ref().is_some_and(|(life, _)| *life == key.incarnation);
            executor.unanswered = 0;
            executor.linked.clone_from(&way);
            // Nothing is placed there before the way is open.
            (executor.unreached_since, executor.through_home) = (way.is_some().then_some(now), false);
            self.outputs.push(match way {
                Some((_, address)) => Output::Connect { executor: key.clone(), address },
                None => Output::Disconnect { executor: key.clone() },
            });
        }
        if link != Link::None {
            // Pull executors tell with each poll what they have.
            way_lost |= std::mem::take(&mut executor.is_severed) && !pull;
        }
        let arrived = held.clone().unwrap_or_default();
        match held {
            Some(held) => {
                if restarted {
                    self.earlier_lives_ended(&key, &held, now);
                }
                if let Some(executor) = self.executors.get_mut(&key.id) {
                    held.iter().for_each(|attempt| executor.arrived(attempt));
                }
                self.end_unwanted(&key, &held);
            }
            // It registered with a peer; only it can say what survived. What was meant for an earlier life it takes no more.
            None if restarted => self.ask_everything_of(&key.id),
            None => {}
        }
        if way_lost {
            // The same life is not asked: what it denies now, and was launched under the same token, it may take yet.
            self.launch_again(&key, &arrived);
        }
        if link == Link::None {
            self.tell_jobs_of(&key.id, now);
        }
        self.ask_executors();
    }

    /// It restarted: of what its earlier lives were given, only what it lists has survived.
    fn earlier_lives_ended(&mut self, key: &ExecutorKey, held: &[HeldKey], now: Millis) {
        let survived: BTreeSet<HeldKey> = held.iter().copied().collect();
        if let Some(executor) = self.executors.get_mut(&key.id) {
            executor.release_where(|held| !survived.contains(held));
        }
        let mut by_job: BTreeMap<JobId, BTreeSet<(TaskId, Attempt)>> = BTreeMap::new();
        for &(job, task, attempt) in held {
            by_job.entry(job).or_default().insert((task, attempt));
        }
        let concerned: Vec<JobId> =
            self.jobs.values().filter(|job| job.graph.concerns(&key.id)).map(|job| job.id).collect();
        let ended = ExecutorKey { incarnation: key.incarnation.saturating_sub(1), ..key.clone() };
        self.went_down(&ended, false, now);
        for job in concerned {
            self.hold_back(job, now);
            let held = by_job.remove(&job).unwrap_or_default();
            self.blame(job, &ended, &held, now);
            let event = Event::ExecutorAnswered { by: key.clone(), held, scope: AnswerScope::EarlierIncarnations };
            self.apply(job, event, now);
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
                self.send_cancel(key, id, task, attempt, Which::All);
            }
        }
    }

    pub(super) fn heartbeat(&mut self, key: &ExecutorKey, free: &Resources, running: u32, draining: bool, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        // One that was declared lost meanwhile, or has moved to a peer, has to register first.
        if !executor.is_here(key) {
            return;
        }
        executor.is_back(Link::Home, now);
        executor.draining = draining;
        executor.counted(free, running);
    }

    /// A stream may end long after the executor has moved to a peer: that says nothing about it any more.
    pub(super) fn session_ended(&mut self, key: &ExecutorKey, now: Millis) {
        let Some(executor) = self.executors.get_mut(&key.id) else { return };
        if executor.key == *key && executor.link == Link::Home {
            executor.fell_silent(now);
            self.tell_jobs_of(&key.id, now);
        }
    }

    /// Schedulers came or went, and with them the homes of executors.
    pub(super) fn schedulers(&mut self, live: BTreeSet<String>, revision: Revision, now: Millis) {
        let mut away = Vec::new();
        for executor in self.executors.values_mut().filter(|executor| executor.home != self.identity.session.0) {
            match executor.link {
                Link::Peer if !live.contains(&executor.home) && executor.record <= revision => {
                    executor.fell_silent(now);
                    away.push(executor.key.id.clone());
                }
                // What was severed is mended by the next look at its record.
                Link::None if live.contains(&executor.home) && !executor.is_severed => {
                    executor.is_back(Link::Peer, now);
                }
                _ => {}
            }
        }
        (self.live_schedulers, self.schedulers_as_of) = (live, revision);
        away.iter().for_each(|executor| self.tell_jobs_of(executor, now));
        self.ask_executors();
    }

    /// It refused for lack of room: our account of it was wrong.
    pub(super) fn mark_full(&mut self, id: &str, now: Millis) {
        /// It has told what it has, and is not to be asked at once again whatever that was.
        const PAUSE_MS: Millis = 100;
        /// One that keeps no account for each scheduler tells its home alone what it has left; others try again after this.
        const BLIND_PAUSE_MS: Millis = 1_000;
        if let Some(executor) = self.executors.get_mut(id) {
            executor.full_until = now + if executor.tells_account { PAUSE_MS } else { BLIND_PAUSE_MS };
        }
    }
}
