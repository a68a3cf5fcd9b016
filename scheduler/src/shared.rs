//! What all parts of one scheduler share.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashmap::{DashMap, DashSet};
use muster_graph::ids::{JobId, Millis};
use muster_state::Session;
use tokio::sync::{Notify, Semaphore, watch};
#[cfg(test)]
use {crate::membership, crate::shell::Inputs, muster_state::StateBackend};

use crate::demand::Demand;
use crate::engine::Identity;
use crate::faults;
use crate::groups::live::Live;
use crate::metrics::Metrics;
use crate::options::{LOADS_AT_ONCE, Options};
use crate::peers::Peers;
use crate::self_fencing::Pulse;
use crate::shell::EngineHandle;
use crate::steady::SteadyTime;
use crate::store_health::StoreHealth;
use crate::unreachable::Unreachable;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) engine: EngineHandle,
    pub(crate) peers: Peers,
    pub(crate) demand: Demand,
    pub(crate) health: StoreHealth,
    pub(crate) metrics: Arc<Metrics>,
    /// Jobs of ours that cannot be read, with the reason, for those who ask about them.
    pub(crate) unreadable: DashMap<JobId, String>,
    /// Jobs between the store and memory.
    in_transit: Arc<DashSet<JobId>>,
    /// Readings of jobs that may be under way.
    pub(crate) loads: Semaphore,
    pub(crate) pulse: Pulse,
    pub(crate) unreachable: Unreachable,
    /// For who asks what groups do.
    pub(crate) live: Live,
    /// Notified when a job here begins to wait for others.
    pub(crate) awaited: Notify,
    /// Notified when an update is committed here.
    pub(crate) updated: Notify,
    /// Held by who counts everything anew: one at a time.
    pub(crate) auditing: tokio::sync::Mutex<()>,
    /// Whether this scheduler hands its jobs over and takes no new ones; see [`crate::draining`].
    pub(crate) draining: watch::Sender<bool>,
    /// It does so because it is cut off ([`crate::isolation`]), and nobody has asked for it.
    pub(crate) drains_by_itself: AtomicBool,
    /// How others reach this scheduler.
    pub(crate) address: String,
    /// The session and what belongs to it. Replaced whole when the session was lost; read for an instant.
    presence: RwLock<Presence>,
    /// The wall clock may be set back, what is written never goes back.
    time: Mutex<SteadyTime>,
}

/// A session and what was found when it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) identity: Identity,
}

/// A job that is on its way between the store and memory: being accepted, read or handed over. While somebody holds
/// this, nobody else reads the job.
#[derive(Debug)]
pub(crate) struct Transit {
    job: JobId,
    all: Arc<DashSet<JobId>>,
}

impl Transit {
    pub(crate) fn job(&self) -> JobId {
        self.job
    }
}

impl Drop for Transit {
    fn drop(&mut self) {
        self.all.remove(&self.job);
    }
}

impl Shared {
    pub(crate) fn new(
        options: Options,
        engine: EngineHandle,
        address: String,
        presence: Presence,
        metrics: Arc<Metrics>,
    ) -> Self {
        let health = StoreHealth::new(&options.scheduler_id, presence.identity.epoch);
        Self {
            options,
            engine,
            peers: Peers::default(),
            demand: Demand::default(),
            health,
            metrics,
            unreadable: DashMap::new(),
            in_transit: Arc::default(),
            loads: Semaphore::new(LOADS_AT_ONCE),
            pulse: Pulse::default(),
            unreachable: Unreachable::default(),
            live: Live::default(),
            awaited: Notify::new(),
            updated: Notify::new(),
            auditing: tokio::sync::Mutex::default(),
            draining: watch::channel(false).0,
            drains_by_itself: AtomicBool::new(false),
            address,
            presence: RwLock::new(presence),
            time: Mutex::new(SteadyTime::new(Instant::now())),
        }
    }

    pub(crate) fn presence(&self) -> Presence {
        self.presence.read().expect("no code panics while holding it").clone()
    }

    pub(crate) fn replace_presence(&self, presence: Presence) {
        *self.presence.write().expect("no code panics while holding it") = presence;
    }

    /// Takes a job into transit. `None`: somebody else has it there.
    pub(crate) fn transit(&self, job: JobId) -> Option<Transit> {
        self.in_transit.insert(job).then(|| Transit { job, all: Arc::clone(&self.in_transit) })
    }

    pub(crate) fn is_in_transit(&self, job: JobId) -> bool {
        self.in_transit.contains(&job)
    }

    pub(crate) fn jobs_in_transit(&self) -> usize {
        self.in_transit.len()
    }

    /// How long the session certainly still lives.
    pub(crate) fn slack(&self) -> Duration {
        self.presence.read().expect("no code panics while holding it").session.slack()
    }

    /// The time, in milliseconds since the Unix epoch. It neither goes back nor stands still while the scheduler runs.
    pub(crate) fn now(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let wrong_by = faults::value_of("clock-wrong-by-ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        let wall = wall.saturating_add_signed(wrong_by);
        self.time.lock().expect("no code panics while holding it").at(wall, Instant::now())
    }
}

#[cfg(test)]
impl Shared {
    /// A scheduler without its engine: what is meant for that one comes out of the queue.
    pub(crate) async fn without_engine(state: &Arc<dyn StateBackend>) -> (Arc<Self>, Inputs) {
        let options = Options::new(Arc::clone(state));
        let presence = membership::open(&options, "here", false, 0).await.expect("the store answers");
        let (engine, inputs) = EngineHandle::new();
        (Arc::new(Self::new(options, engine, "here".to_owned(), presence, Arc::new(Metrics::new()))), inputs)
    }
}
