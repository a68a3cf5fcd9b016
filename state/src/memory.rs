//! The store in memory: for tests, for simulations, and for a cluster that may forget everything when its process ends.
//!
//! Linearizable: every call is one short critical section of one mutex. A clone is another client of the same store.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::{Clock, TokioClock};
use crate::liveness::check_ttl;
use crate::local_session::{Host, LocalSession};
use crate::mvcc::{Core, Shared};
use crate::{
    Entry, Error, Key, Keyspace, Lock, Member, Page, Revision, Scan, Session, SessionId, StateBackend, StoreStatus,
    Txn, TxnOutcome, WatchStream, limits, lock,
};

/// A store in memory. Clones share it.
#[derive(Debug, Clone)]
pub struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
}

impl Memory {
    /// An empty store whose sessions live by tokio's clock (real, or paused by a test).
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(TokioClock::new()))
    }

    /// An empty store whose sessions live by this clock.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(Inner { shared: Arc::new(Shared::new(Core::new())), clock }) }
    }

    /// Ends a session as an operator's `etcdctl lease revoke` would: its keys go now, its holder learns of it later.
    pub fn revoke(&self, id: &SessionId) {
        let mut core = self.inner.shared.core();
        core.end_session(id);
        self.inner.shared.publish(core);
    }

    /// Ends the sessions whose time is up. Every transaction does it too, and so do the sessions' own tasks while they
    /// live; a simulation, in which these die with their hosts, does it all the time as etcd would.
    pub fn expire(&self) {
        let mut core = self.inner.shared.core();
        if core.expire(self.inner.clock.now()) {
            self.inner.shared.publish(core);
        }
    }
}

/// A revision, with every key that it wrote; `None`: deleted.
#[cfg(feature = "testing")]
pub type RevisionOfAll = (Revision, Vec<(Key, Option<Bytes>)>);

#[cfg(feature = "testing")]
impl Memory {
    /// Every change from a revision on, whatever its keyspace, in order: for those who judge a store's whole past.
    ///
    /// # Errors
    /// [`Error::Compacted`] if some of it is forgotten.
    pub fn changes_since(&self, from: Revision) -> Result<Vec<RevisionOfAll>, Error> {
        self.inner.shared.core().changes_of_all(from)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Host for Inner {
    fn renew(&self, id: &SessionId) -> bool {
        self.shared.core().renew(id, self.clock.now())
    }

    fn expires_at(&self, id: &SessionId) -> Option<Duration> {
        self.shared.core().expires_at(id)
    }

    async fn expire(&self) {
        let mut core = self.shared.core();
        if core.expire(self.clock.now()) {
            self.shared.publish(core);
        }
    }

    async fn end(&self, id: &SessionId) {
        let mut core = self.shared.core();
        core.end_session(id);
        self.shared.publish(core);
    }
}

#[async_trait]
impl StateBackend for Memory {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        limits::check_name(key)?;
        tokio::task::coop::consume_budget().await;
        Ok(self.inner.shared.core().get(key))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<(Revision, Vec<Option<Entry>>), Error> {
        keys.iter().try_for_each(limits::check_name)?;
        let core = self.inner.shared.core();
        Ok((core.visible(), keys.iter().map(|key| core.get(key)).collect()))
    }

    async fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Result<Page, Error> {
        limits::check_prefix(prefix)?;
        Ok(self.inner.shared.core().get_from_prefix(keyspace, prefix))
    }

    async fn scan(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        limits::check_scan(&scan)?;
        self.inner.shared.core().scan(keyspace, &scan, true)
    }

    async fn scan_keys(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        limits::check_scan(&scan)?;
        self.inner.shared.core().scan(keyspace, &scan, false)
    }

    async fn put_txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        limits::check_txn(&txn)?;
        // Nothing else here ever waits: a caller in a loop must not keep the others on its thread from running.
        tokio::task::coop::consume_budget().await;
        let mut core = self.inner.shared.core();
        // A lease whose time is up must not pass for alive only because its task has not run yet.
        core.expire(self.inner.clock.now());
        let outcome = core.apply(txn);
        self.inner.shared.publish(core);
        outcome
    }

    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        limits::check_prefix(prefix)?;
        Ok(self.inner.shared.watch(keyspace, prefix, from))
    }

    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error> {
        limits::check_session(&id)?;
        limits::check_value(value.len())?;
        check_ttl(ttl)?;
        let sent_at = self.inner.clock.now();
        let mut core = self.inner.shared.core();
        core.expire(sent_at);
        let opened = core.open_session(&id, ttl, value, sent_at);
        self.inner.shared.publish(core);
        opened?;
        let inner: Arc<dyn Host> = Arc::clone(&self.inner) as Arc<dyn Host>;
        let host: Weak<dyn Host> = Arc::downgrade(&inner);
        Ok(LocalSession::start(id, ttl, sent_at, Arc::clone(&self.inner.clock), host))
    }

    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
        lock::acquire(Arc::new(self.clone()), name, session).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.inner.shared.core().visible())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.shared.core().compact(revision).map(drop)
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let (size_bytes, in_use_bytes) = self.inner.shared.core().bytes();
        let name = "memory".to_owned();
        let member = Member { name, size_bytes, in_use_bytes, is_leader: true, ..Member::default() };
        Ok(StoreStatus { has_quota: false, members: vec![member] })
    }
}
