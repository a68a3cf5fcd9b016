//! The store of a cluster: etcd 3.4.23 or later.
//!
//! Everything that reads is linearizable; a transaction is one round trip. The parts: `options` (the URL), `layout` (stored
//! keys), `calls` (members, deadlines, what errors mean), `transaction` (guards and operations as etcd's), `watch`,
//! `session`.

mod calls;
mod layout;
mod maintenance;
mod options;
mod session;
mod transaction;
mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{CompactionOptions, GetOptions, GetResponse};

pub use options::{CALL_TIMEOUT, CONNECT_TIMEOUT, EtcdOptions};

use crate::clock::{BootClock, Clock as _};
use crate::liveness::{Liveness, check_ttl};
use crate::{
    Entry, Error, Key, Keyspace, Lock, Page, Revision, Scan, Session, SessionId, StateBackend, StoreStatus,
    TXN_OPS_MAX, Txn, TxnOutcome, VALUE_BYTES_MAX, WatchStream, limits, lock, page,
};
use calls::{Members, Nature};
use layout::{Layout, end_of};
use session::EtcdSession;

/// The largest answer: the largest page of the largest values, and as much again for names and framing of small ones.
const DECODE_BYTES_MAX: usize = page::ENTRIES_MAX * (VALUE_BYTES_MAX + 1024);

/// A cluster's store. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Etcd {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    members: Members,
    layout: Layout,
    /// Leases of the sessions that were opened here, also of those that are over: their ids are not used again.
    leases: Mutex<BTreeMap<SessionId, i64>>,
}

impl Etcd {
    /// The store of a cluster. Nothing is sent yet: that etcd cannot be reached is said by the calls that need it.
    pub fn new(options: EtcdOptions, cluster: &str) -> Result<Self, Error> {
        limits::check_cluster(cluster)?;
        let inner = Inner { members: Members::new(options), layout: Layout::new(cluster), leases: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, BTreeMap<SessionId, i64>> {
        self.inner.leases.lock().expect("a map's own methods do not panic")
    }

    /// One linearizable read.
    async fn range(&self, from: Vec<u8>, options: GetOptions) -> Result<GetResponse, Error> {
        self.inner
            .members
            .call(Nature::Repeatable, |client| {
                let (from, options) = (from.clone(), options.clone());
                async move { client.kv_client().max_decoding_message_size(DECODE_BYTES_MAX).get(from, Some(options)).await }
            })
            .await
    }

    async fn page(&self, keyspace: Keyspace, scan: Scan, keys_only: bool) -> Result<Page, Error> {
        limits::check_scan(&scan)?;
        if scan.at == Some(0) {
            return Err(self.compacted(0).await);
        }
        let prefix = self.inner.layout.stored(keyspace, &scan.prefix);
        let from = match &scan.after {
            // The least name above `after`.
            Some(after) if *after >= scan.prefix => {
                let mut from = self.inner.layout.stored(keyspace, after);
                from.push(0);
                from
            }
            _ => prefix.clone(),
        };
        let limit = page::limit(scan.limit);
        let end = end_of(&prefix);
        let mut options = GetOptions::new().with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        if from < end {
            options = options.with_range(end);
        }
        if let Some(at) = scan.at {
            options = options.with_revision(revision_out(at));
        }
        if keys_only {
            options = options.with_keys_only();
        }
        // Beyond the prefix's end there is nothing; a get of one key that cannot exist still tells the revision.
        let response = match self.range(from, options).await {
            Err(Error::Compacted { .. }) => return Err(self.compacted(scan.at.unwrap_or(0)).await),
            other => other?,
        };
        let revision = scan.at.unwrap_or(revision_of(response.header()));
        let entries = response
            .kvs()
            .iter()
            .map(|kv| self.inner.layout.name(keyspace, kv.key()).map(|name| entry(name, kv)))
            .collect::<Result<Vec<_>, _>>()?;
        let next = if response.more() { entries.last().map(|entry| entry.name.clone()) } else { None };
        Ok(Page { entries, revision, next })
    }

    /// etcd does not say with a refused read what it still has; a watch from the beginning does.
    async fn compacted(&self, asked: Revision) -> Error {
        let oldest = watch::oldest_revision(&self.inner).await.unwrap_or(asked + 1);
        Error::Compacted { asked, oldest: oldest.max(asked + 1) }
    }

    /// Writes the session's key with its lease. Settles an unknown outcome, as only we write this key.
    async fn write_session_key(
        &self,
        id: &SessionId,
        lease: i64,
        value: Bytes,
        deadline: Duration,
    ) -> Result<(), Error> {
        let key = self.inner.layout.session(id);
        loop {
            let written = self.inner.members.call(Nature::Write, |client| {
                let txn = transaction::session_key(&key, lease, &value);
                async move { client.kv_client().txn(txn).await }
            });
            let response = match written.await {
                Ok(response) => response,
                Err(error) if error.is_retryable() && BootClock.now() < deadline => {
                    tokio::time::sleep(RETRY_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let ours =
                response.succeeded() || transaction::read(&response).any(|kv| kv.is_some_and(|kv| kv.lease() == lease));
            return if ours { Ok(()) } else { Err(crate::mvcc::session_in_use(id)) };
        }
    }
}

/// Between sendings of a session's key.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

fn revision_of(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    header.map_or(0, |header| header.revision().unsigned_abs())
}

fn revision_out(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

fn entry(name: String, kv: &etcd_client::KeyValue) -> Entry {
    Entry {
        name,
        value: Bytes::copy_from_slice(kv.value()),
        create_revision: kv.create_revision().unsigned_abs(),
        mod_revision: kv.mod_revision().unsigned_abs(),
    }
}

#[async_trait]
impl StateBackend for Etcd {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        limits::check_name(key)?;
        let response = self.range(self.inner.layout.key(key), GetOptions::new()).await?;
        Ok(response.kvs().first().map(|kv| entry(key.name.clone(), kv)))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<(Revision, Vec<Option<Entry>>), Error> {
        keys.iter().try_for_each(limits::check_name)?;
        if keys.is_empty() {
            return Ok((self.revision().await?, Vec::new()));
        }
        let mut revision = None;
        let mut found = Vec::with_capacity(keys.len());
        // One transaction reads at one revision; those after the first read at the first one's.
        for keys in keys.chunks(TXN_OPS_MAX) {
            let stored: Vec<Vec<u8>> = keys.iter().map(|key| self.inner.layout.key(key)).collect();
            let read = self.inner.members.call(Nature::Repeatable, |client| {
                let txn = transaction::gets(&stored, revision.map(revision_out));
                async move { client.kv_client().max_decoding_message_size(DECODE_BYTES_MAX).txn(txn).await }
            });
            let response = match read.await {
                Err(Error::Compacted { .. }) => return Err(self.compacted(revision.unwrap_or(0)).await),
                other => other?,
            };
            revision.get_or_insert(revision_of(response.header()));
            found.extend(
                keys.iter()
                    .zip(transaction::read(&response))
                    .map(|(key, kv)| kv.map(|kv| entry(key.name.clone(), &kv))),
            );
        }
        Ok((revision.unwrap_or(0), found))
    }

    async fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Result<Page, Error> {
        let mut scan = Scan { prefix: prefix.to_owned(), ..Scan::default() };
        let mut all = Page::default();
        loop {
            let mut page = self.page(keyspace, scan.clone(), false).await?;
            all.revision = page.revision;
            all.entries.append(&mut page.entries);
            scan.at = Some(page.revision);
            scan.after = page.next;
            if scan.after.is_none() {
                return Ok(all);
            }
        }
    }

    async fn scan(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        self.page(keyspace, scan, false).await
    }

    async fn scan_keys(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        self.page(keyspace, scan, true).await
    }

    async fn put_txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        limits::check_txn(&txn)?;
        let leases = self.leases_of(&txn).await?;
        let response = self
            .inner
            .members
            .call(Nature::Write, |client| {
                let txn = transaction::outward(&self.inner.layout, &txn, &leases);
                async move { client.kv_client().max_decoding_message_size(DECODE_BYTES_MAX).txn(txn).await }
            })
            .await?;
        let revision = revision_of(response.header());
        if response.succeeded() {
            return Ok(TxnOutcome::Committed(revision));
        }
        let read = txn
            .read_on_failure
            .iter()
            .zip(transaction::read(&response))
            .map(|(key, kv)| kv.map(|kv| entry(key.name.clone(), &kv)))
            .collect();
        Ok(TxnOutcome::Refused { revision, read })
    }

    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        limits::check_prefix(prefix)?;
        Ok(watch::watch(Arc::clone(&self.inner), keyspace, prefix, from))
    }

    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error> {
        limits::check_session(&id)?;
        limits::check_value(value.len())?;
        check_ttl(ttl)?;
        if self.leases().contains_key(&id) {
            return Err(crate::mvcc::session_in_use(&id));
        }
        // etcd counts in whole seconds.
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let sent_at = BootClock.now();
        // Granting twice leaves a lease that nobody renews: it goes by itself.
        let granted = self
            .inner
            .members
            .call(Nature::Repeatable, |client| async move { client.lease_client().grant(seconds, None).await })
            .await?;
        let lease = granted.id();
        // etcd may grant more than was asked for: no lease is shorter than its election.
        let ttl = Duration::from_secs(granted.ttl().unsigned_abs());
        // The call may have been sent more than once, so the time of the first sending is the safe one.
        let liveness = Liveness::new(ttl, sent_at, Arc::new(BootClock));
        self.write_session_key(&id, lease, value, sent_at + ttl / 2).await?;
        self.leases().insert(id.clone(), lease);
        Ok(EtcdSession::start(id, lease, liveness, Arc::clone(&self.inner)))
    }

    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
        lock::acquire(Arc::new(self.clone()), name, session).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        let nothing = self.inner.layout.stored(Keyspace::Meta, "");
        let response = self.range(nothing, GetOptions::new().with_count_only()).await?;
        Ok(revision_of(response.header()))
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        // etcd forgets what R itself deleted when it compacts at R; everything from `revision` on must stay.
        let Some(at) = revision.checked_sub(1).filter(|at| *at > 0) else { return Ok(()) };
        let compacted = self
            .inner
            .members
            .call(Nature::Repeatable, |client| async move {
                // Answered when this member has really forgotten it, not only resolved to.
                let options = CompactionOptions::new().with_physical();
                client.kv_client().compact(revision_out(at), Some(options)).await
            })
            .await;
        match compacted {
            Ok(_) | Err(Error::Compacted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        self.members_status().await
    }

    async fn defragment(&self, member: u64) -> Result<(), Error> {
        self.defragment_member(member).await
    }

    async fn disarm_no_space(&self, member: u64) -> Result<(), Error> {
        self.disarm_member(member).await
    }
}

impl Etcd {
    /// The leases that a transaction's writes go with.
    async fn leases_of(&self, txn: &Txn) -> Result<BTreeMap<SessionId, i64>, Error> {
        let mut leases = BTreeMap::new();
        for op in &txn.ops {
            let crate::Op::Put { session: Some(id), .. } = op else { continue };
            if leases.contains_key(id) {
                continue;
            }
            let known = self.leases().get(id).copied();
            let lease = match known {
                Some(lease) => lease,
                None => self.lease_of_another(id).await?,
            };
            leases.insert(id.clone(), lease);
        }
        Ok(leases)
    }

    /// A session that was opened elsewhere: its key knows its lease. If it is gone, etcd itself is to refuse the
    /// transaction (after its guards, as for our own sessions), by a lease that does not exist.
    async fn lease_of_another(&self, id: &SessionId) -> Result<i64, Error> {
        let response = self.range(self.inner.layout.session(id), GetOptions::new()).await?;
        Ok(response.kvs().first().map(etcd_client::KeyValue::lease).filter(|lease| *lease != 0).unwrap_or(NO_LEASE))
    }
}

/// etcd draws lease ids at random from 63 bits; this one is never granted.
const NO_LEASE: i64 = i64::MAX;
