//! What a scheduler is told at its start, and the limits that it keeps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use muster_proto::network::Network;
use muster_state::StateBackend;

use crate::groups::callbacks::CallbackSecret;

/// Everything that a scheduler is told. Immutable once it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its name; shown to users. Its session has a fresh id of its own at each start.
    pub scheduler_id: String,
    /// The store that it shares with its peers.
    pub state: Arc<dyn StateBackend>,
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// How others reach it, `host:port`; `None`: the address it listens on.
    pub advertise: Option<String>,
    /// Its session's time to live: a dead scheduler's jobs are taken over after this long plus one scan.
    pub session_ttl: Duration,
    /// An executor that has been out of reach for this long is declared lost.
    pub lost_after: Duration,
    /// Between two heartbeats of an executor.
    pub heartbeat: Duration,
    /// Between two looks for jobs without an owner.
    pub scan_every: Duration,
    /// Listen beyond loopback, though nothing is authenticated yet.
    pub allow_remote: bool,
    /// How it reaches others, and they it.
    pub network: Network,
    /// Bytes beyond which the store takes no writes, where it does not say so itself (etcd before 3.6).
    pub store_quota: u64,
    /// What callbacks are signed with; `None`: they are not.
    pub callback_secret: Option<CallbackSecret>,
    /// What it owns at most: memory is used by that, and by little else.
    pub owned_max: OwnedMax,
}

/// What a scheduler owns at most. Beyond it submits are answered with RESOURCE_EXHAUSTED, and no orphans are claimed: peers do, or
/// they wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnedMax {
    /// Jobs that are not over.
    pub jobs: usize,
    /// Tasks of theirs, in whichever state. A million takes some hundred megabytes.
    pub tasks: u64,
}

impl Default for OwnedMax {
    fn default() -> Self {
        Self { jobs: 20_000, tasks: 5_000_000 }
    }
}

/// etcd's own, if it is not told another one (`--quota-backend-bytes`).
pub const STORE_QUOTA_DEFAULT: u64 = 2 << 30;

impl Options {
    /// The defaults, over a store.
    #[must_use]
    pub fn new(state: Arc<dyn StateBackend>) -> Self {
        Self {
            scheduler_id: format!("scheduler-{:08x}", rand::random::<u32>()),
            state,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            session_ttl: Duration::from_secs(10),
            lost_after: Duration::from_secs(30),
            heartbeat: Duration::from_secs(1),
            scan_every: Duration::from_secs(2),
            allow_remote: false,
            network: Network::Tcp,
            store_quota: STORE_QUOTA_DEFAULT,
            callback_secret: None,
            owned_max: OwnedMax::default(),
        }
    }
}

/// Jobs that are read from the store at once: enough to keep it busy, few enough to leave room for commits.
pub const LOADS_AT_ONCE: usize = 32;
/// Jobs claimed in one transaction: each takes a guard of at most 128, and one bad one holds up no more than these.
pub const CLAIM_BATCH: usize = 48;
/// Jobs handed over in one transaction: each takes two guards of at most 128.
pub const HANDOVER_BATCH: usize = 60;
/// Statuses in one call.
pub const STATUSES_PER_CALL_MAX: usize = 4096;
/// Inputs that wait for the engine; who brings more waits for room, within its call's deadline.
pub const ENGINE_QUEUE: usize = 4096;
/// Transactions in flight to the store. A job has one at most; several jobs share one.
pub const COMMITS_IN_FLIGHT: usize = 4;
/// Attempts sent to one executor and not yet answered: what a hung executor can swallow.
pub const LAUNCH_WINDOW: u32 = 4096;
/// Attempts in one launch message.
pub const LAUNCH_BATCH: usize = 512;
/// A job with at most so many tasks is kept in its head alone.
pub const INLINE_TASKS_MAX: u64 = 64;
/// And only if its spec and plan together are no larger than this, since the head is rewritten by each commit.
pub const INLINE_BYTES_MAX: usize = 16 << 10;
/// Every call to a peer or an executor.
pub const PEER_DEADLINE: Duration = Duration::from_secs(10);
/// How long a user's call may wait for its commit.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// The longest that PollWork waits for work.
pub const POLL_WAIT_MAX: Duration = Duration::from_secs(30);
/// An idempotency key, at most.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Attempts of a task within one epoch of the store, at most. In a new epoch numbers begin above all those that may have
/// been given out in the one before and that the restored store does not know of. Retries are counted in tens; this leaves room for
/// four thousand epochs.
pub const ATTEMPTS_PER_EPOCH: u32 = 1 << 20;
