//! The store as one scheduler sees it: with delays, answers that do not come, writes that land late or never, and watches
//! that break off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use muster_state::{
    Entry, Error, Key, Keyspace, Lock, Op, Page, Revision, Scan, Session, SessionId, StateBackend, StoreStatus, Txn,
    TxnOutcome, WatchStream,
};
use tokio::time::sleep;

use crate::world::{World, now};

/// A call that does not get through fails after this long.
const CALL_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often a call that does not get through looks again.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A session whose renewals the network can keep from the store, whatever its holder wants.
#[derive(Debug)]
pub(crate) struct Lease {
    inner: Arc<dyn Session>,
    wanted: AtomicBool,
    cut: AtomicBool,
}

impl Lease {
    pub(crate) fn cut_off(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
        self.inner.renew(!cut && self.wanted.load(Ordering::Relaxed));
    }
}

#[async_trait]
impl Session for Lease {
    fn id(&self) -> &SessionId {
        self.inner.id()
    }

    fn slack(&self) -> Duration {
        self.inner.slack()
    }

    async fn lost(&self) {
        self.inner.lost().await;
    }

    fn renew(&self, on: bool) {
        self.wanted.store(on, Ordering::Relaxed);
        self.inner.renew(on && !self.cut.load(Ordering::Relaxed));
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) world: Arc<World>,
    /// Which scheduler's.
    pub(crate) scheduler: usize,
}

impl Store {
    /// The way to the store, or the way back.
    async fn way(&self) -> Result<(), Error> {
        let world = &self.world;
        let mut waited = Duration::ZERO;
        while world.store_links[self.scheduler].cut.load(Ordering::Relaxed) {
            if waited >= CALL_TIMEOUT {
                return Err(Error::Unavailable("the store is cut off".to_owned()));
            }
            sleep(LOOK_EVERY).await;
            waited += LOOK_EVERY;
        }
        if world.strikes(20) {
            world.fault("store-slow", format_args!("scheduler-{}", self.scheduler));
            sleep(world.millis(20, 400)).await;
        } else {
            sleep(Duration::from_micros(world.between(50, 1500))).await;
        }
        Ok(())
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T, Error>> + Send) -> Result<T, Error> {
        self.way().await?;
        if self.world.strikes(10) {
            self.world.fault("store-unavailable", format_args!("scheduler-{} reads", self.scheduler));
            return Err(Error::Unavailable("a simulated fault".to_owned()));
        }
        let found = read.await;
        self.way().await?;
        found
    }
}

fn unknown() -> Error {
    Error::Unknown("a simulated fault".to_owned())
}

#[async_trait]
impl StateBackend for Store {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.read(self.world.memory.get(key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<(Revision, Vec<Option<Entry>>), Error> {
        self.read(self.world.memory.get_many(keys)).await
    }

    async fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Result<Page, Error> {
        self.read(self.world.memory.get_from_prefix(keyspace, prefix)).await
    }

    async fn scan(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        self.read(self.world.memory.scan(keyspace, scan)).await
    }

    async fn scan_keys(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        self.read(self.world.memory.scan_keys(keyspace, scan)).await
    }

    async fn put_txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        let (world, who) = (&self.world, format!("scheduler-{}", self.scheduler));
        self.way().await?;
        // A session ends just before a write that counts on it.
        if world.strikes(2) && txn.ops.iter().any(|op| matches!(op, Op::Put { session: None, .. })) {
            let sessions = world.store_links[self.scheduler].sessions.lock().expect("nothing panics while holding it");
            if let Some(session) = sessions.last() {
                world.fault("session-revoked-before-commit", &who);
                world.record.away(None, now(), now());
                world.memory.revoke(session.id());
                world.record.writes(now());
            }
        }
        if world.strikes(5) {
            world.fault("store-unavailable", format_args!("{who} writes"));
            return Err(Error::Unavailable("a simulated fault".to_owned()));
        }
        if world.strikes(10) {
            world.fault("unknown-not-done", &who);
            sleep(world.millis(1, 200)).await;
            return Err(unknown());
        }
        if world.strikes(15) {
            world.fault("unknown-done-later", &who);
            // Between the repetitions of the sender, and after it gave up.
            let after = world.millis(1, 1500);
            // The store's host ends with the simulation.
            let _ = world.late.send((after, txn));
            sleep(world.millis(1, 200)).await;
            return Err(unknown());
        }
        let outcome = world.memory.put_txn(txn).await;
        world.record.writes(now());
        world.note(format_args!("write {who} {}", describe(&outcome)));
        if world.strikes(15) {
            world.fault("unknown-done", &who);
            sleep(world.millis(1, 200)).await;
            return Err(unknown());
        }
        match self.way().await {
            Ok(()) => outcome,
            // It is done, and the answer does not come.
            Err(_) => Err(unknown()),
        }
    }

    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        self.way().await?;
        let stream = self.world.memory.watch(keyspace, prefix, from).await?;
        let (world, scheduler) = (Arc::clone(&self.world), self.scheduler);
        let faulty = futures::stream::unfold(Some((stream, world)), move |state| async move {
            let (mut stream, world) = state?;
            let item = stream.next().await?;
            if world.strikes(30) {
                world.fault("watch-broken", format_args!("scheduler-{scheduler}"));
                return Some((Err(Error::Unavailable("the watch broke off".to_owned())), None));
            }
            if world.strikes(100) {
                world.fault("watch-late", format_args!("scheduler-{scheduler}"));
                sleep(world.millis(50, 1500)).await;
            }
            while world.store_links[scheduler].cut.load(Ordering::Relaxed) {
                sleep(LOOK_EVERY).await;
            }
            Some((item, Some((stream, world))))
        });
        Ok(faulty.boxed())
    }

    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error> {
        self.way().await?;
        let inner = self.world.memory.open_session(id, ttl, value).await?;
        let session = Arc::new(Lease { inner, wanted: AtomicBool::new(true), cut: AtomicBool::new(false) });
        self.world.record.writes(now());
        let link = &self.world.store_links[self.scheduler];
        link.sessions.lock().expect("nothing panics while holding it").push(Arc::clone(&session));
        if link.cut.load(Ordering::Relaxed) {
            session.cut_off(true);
        }
        Ok(session)
    }

    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
        self.way().await?;
        let lock = self.world.memory.lock(name, session).await;
        self.way().await?;
        lock
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.read(self.world.memory.revision()).await
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        self.read(self.world.memory.status()).await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.way().await?;
        self.world.memory.compact(revision).await
    }
}

/// An outcome, for the trace.
pub(crate) fn describe(outcome: &Result<TxnOutcome, Error>) -> String {
    match outcome {
        Ok(TxnOutcome::Committed(revision)) => format!("committed {revision}"),
        Ok(TxnOutcome::Refused { revision, .. }) => format!("refused {revision}"),
        Err(error) => error.to_string(),
    }
}
