//! What all hosts of one simulated cluster share: chance, the trace, the count of faults, and the store.
//!
//! Invariant: everything random comes from the seed, and is drawn in an order that the seed decides too: hosts run one
//! after the other on one thread.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use muster_state::clock::Clock;
use muster_state::{Memory, Session, Txn};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;

use crate::judge::Record;

/// See the module.
pub(crate) struct World {
    pub(crate) seed: u64,
    /// The cluster's store, as it would be without faults.
    pub(crate) memory: Memory,
    /// What the checker will decide from.
    pub(crate) record: Record,
    /// Files of the executors.
    pub(crate) folder: PathBuf,
    /// No more faults from now on.
    calm: AtomicBool,
    /// The time as of the last step, for what happens between the hosts' turns.
    elapsed_ms: AtomicU64,
    chance: Mutex<SmallRng>,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    trace: Mutex<Trace>,
    /// Transactions whose sender has been told nothing, and that land later, whatever becomes of the sender.
    pub(crate) late: mpsc::UnboundedSender<(Duration, Txn)>,
    /// By scheduler.
    pub(crate) store_links: Vec<StoreLink>,
    /// What went wrong, in words; empty is a good end.
    complaints: Mutex<Vec<String>>,
}

/// What lies between one scheduler and the store.
#[derive(Default)]
pub(crate) struct StoreLink {
    /// No call gets through.
    pub(crate) cut: AtomicBool,
    /// Its sessions, for faults that strike them.
    pub(crate) sessions: Mutex<Vec<Arc<dyn Session>>>,
}

/// Everything that happened, as one number; and as text, if somebody reads it.
struct Trace {
    hash: blake3::Hasher,
    told: bool,
    events: u64,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.seed).finish_non_exhaustive()
    }
}

impl World {
    pub(crate) fn new(
        seed: u64,
        schedulers: usize,
        folder: PathBuf,
        told: bool,
        late: mpsc::UnboundedSender<(Duration, Txn)>,
    ) -> Self {
        let memory = Memory::with_clock(Arc::new(SimulatedClock));
        Self {
            seed,
            record: Record::new(&memory),
            memory,
            folder,
            calm: AtomicBool::new(false),
            elapsed_ms: AtomicU64::new(0),
            chance: Mutex::new(SmallRng::seed_from_u64(seed)),
            faults: Mutex::default(),
            trace: Mutex::new(Trace { hash: blake3::Hasher::new(), told, events: 0 }),
            late,
            store_links: (0..schedulers).map(|_| StoreLink::default()).collect(),
            complaints: Mutex::default(),
        }
    }

    fn chance(&self) -> MutexGuard<'_, SmallRng> {
        self.chance.lock().expect("nothing panics while holding it")
    }

    /// True so many times in a thousand.
    pub(crate) fn odds(&self, permille: u32) -> bool {
        self.chance().random_range(0..1000) < permille
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        self.chance().random_range(low..=high)
    }

    /// A time from `low` to `high` milliseconds.
    pub(crate) fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// A fault happens: it is counted, and noted.
    pub(crate) fn fault(&self, kind: &'static str, what: impl fmt::Display) {
        *self.faults.lock().expect("nothing panics while holding it").entry(kind).or_default() += 1;
        self.note(format_args!("fault {kind} {what}"));
    }

    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.faults.lock().expect("nothing panics while holding it").clone()
    }

    /// True if a fault may happen now, and so many times in a thousand.
    pub(crate) fn strikes(&self, permille: u32) -> bool {
        !self.is_calm() && self.odds(permille)
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// A step was made.
    pub(crate) fn set_elapsed(&self, elapsed: Duration) {
        self.elapsed_ms.store(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Adds an event to the trace.
    pub(crate) fn note(&self, event: impl fmt::Display) {
        let at = turmoil::sim_elapsed().map_or(self.elapsed_ms.load(Ordering::Relaxed).into(), |now| now.as_millis());
        let line = format!("{at:>7} {event}\n");
        let mut trace = self.trace.lock().expect("nothing panics while holding it");
        trace.hash.update(line.as_bytes());
        trace.events += 1;
        if trace.told {
            eprint!("{line}");
        }
    }

    /// The trace as one number, and how many events it has.
    pub(crate) fn trace(&self) -> (String, u64) {
        let trace = self.trace.lock().expect("nothing panics while holding it");
        (trace.hash.finalize().to_hex()[..16].to_owned(), trace.events)
    }

    /// Something is wrong with the cluster.
    pub(crate) fn complain(&self, what: impl fmt::Display) {
        self.note(format_args!("WRONG {what}"));
        self.complaints.lock().expect("nothing panics while holding it").push(what.to_string());
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().expect("nothing panics while holding it").clone()
    }
}

/// Time since the beginning, the same for all hosts.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

/// The store's clock. Each host has a runtime of its own, whose instants mean nothing to the others.
#[derive(Debug)]
pub(crate) struct SimulatedClock;

#[async_trait]
impl Clock for SimulatedClock {
    fn now(&self) -> Duration {
        now()
    }

    async fn sleep_until(&self, at: Duration) {
        while let Some(left) = at.checked_sub(now()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left).await;
        }
    }
}

/// Where a host listens.
pub(crate) const PORT: u16 = 7077;

/// The address of a host.
pub(crate) fn address(host: &str) -> String {
    format!("{host}:{PORT}")
}

/// The name behind an address, for the trace.
pub(crate) fn name_of(address: IpAddr) -> String {
    turmoil::reverse_lookup(address).unwrap_or_else(|| address.to_string())
}
