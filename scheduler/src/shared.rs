//! What all parts of one scheduler share.

use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use muster_graph::ids::{JobId, Millis};
use muster_state::Session;

use crate::demand::Demand;
use crate::engine::Identity;
use crate::faults;
use crate::options::Options;
use crate::peers::Peers;
use crate::shell::EngineHandle;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) engine: EngineHandle,
    pub(crate) peers: Peers,
    pub(crate) demand: Demand,
    /// Jobs of ours that cannot be read, with the reason, for those who ask about them.
    pub(crate) unreadable: DashMap<JobId, String>,
    /// How others reach this scheduler.
    pub(crate) address: String,
    /// The session and what belongs to it. Replaced whole when the session was lost; read for an instant.
    presence: RwLock<Presence>,
    /// The newest time that was told: the wall clock may be set back, what is written never goes back.
    newest: Mutex<Millis>,
}

/// A session and what was found when it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Presence {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) identity: Identity,
}

impl Shared {
    pub(crate) fn new(options: Options, engine: EngineHandle, address: String, presence: Presence) -> Self {
        Self {
            options,
            engine,
            peers: Peers::default(),
            demand: Demand::default(),
            unreadable: DashMap::new(),
            address,
            presence: RwLock::new(presence),
            newest: Mutex::new(0),
        }
    }

    pub(crate) fn presence(&self) -> Presence {
        self.presence.read().expect("no code panics while holding it").clone()
    }

    pub(crate) fn replace_presence(&self, presence: Presence) {
        *self.presence.write().expect("no code panics while holding it") = presence;
    }

    /// How long the session certainly still lives.
    pub(crate) fn slack(&self) -> Duration {
        self.presence.read().expect("no code panics while holding it").session.slack()
    }

    /// The time, in milliseconds since the Unix epoch. It never goes back while the scheduler runs.
    pub(crate) fn now(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
        let wrong_by = faults::value_of("clock-wrong-by-ms").and_then(|ms| ms.parse().ok()).unwrap_or(0);
        let wall = wall.saturating_add_signed(wrong_by);
        let mut newest = self.newest.lock().expect("no code panics while holding it");
        *newest = newest.max(wall);
        *newest
    }
}
