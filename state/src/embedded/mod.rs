//! The store on one machine: the in-process core, made durable by redb.
//!
//! One writer thread takes transactions from a bounded queue, as many as are waiting, judges them one after the other,
//! writes what they changed in one commit of the database (one fsync), and only then lets readers see it and answers.
//! Invariants:
//! - What was answered, or seen by any reader or watch, is on the disk.
//! - An answer that depends on a transaction (a refusal, for instance) is not given before that transaction is durable.
//! - After a failed commit nothing more is written: what the disk has is known again only by opening it anew.
//! - One process at a time. Sessions end with their process: their keys are gone when the store is opened again.
//!
//! Calls have deadlines in tokio's time and are answered by a thread, so this store does not suit paused time.

mod disk;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, TokioClock};
use crate::liveness::check_ttl;
use crate::local_session::{Host, LocalSession};
use crate::mvcc::Shared;
use crate::{
    Entry, Error, Key, Keyspace, Lock, Member, Page, Revision, Scan, Session, SessionId, StateBackend, StoreStatus,
    Txn, TxnOutcome, WatchStream, limits, lock,
};
use disk::Disk;
use writer::Request;

/// How long a write may take. Far more than the slowest fsync of a healthy disk; a stuck one must not hang its callers.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that wait for the writer; more callers wait for a place in the queue.
const QUEUE_MAX: usize = 1024;

/// A durable store in a directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Embedded {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// `None` only while this is being dropped.
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Embedded {
    /// Opens the store in a directory, which is made if need be. Refused while another process has it open, and for
    /// another cluster than the one that it was made for.
    pub async fn open(directory: impl AsRef<Path>, cluster: &str) -> Result<Self, Error> {
        limits::check_cluster(cluster)?;
        let (directory, cluster) = (directory.as_ref().to_owned(), cluster.to_owned());
        let opening = tokio::task::spawn_blocking(move || {
            let (mut disk, core) = Disk::open(&directory, &cluster)?;
            let shared = Arc::new(Shared::new(core));
            // The ends of the previous process's sessions.
            disk.write_unpublished(&shared)?;
            shared.publish(shared.core());
            let (requests, queue) = mpsc::channel(QUEUE_MAX);
            let writer = std::thread::Builder::new()
                .name("muster-store".to_owned())
                .spawn({
                    let shared = Arc::clone(&shared);
                    move || writer::run(&shared, disk, queue)
                })
                .map_err(|error| Error::Fatal(format!("no thread for the store: {error}")))?;
            Ok((directory, shared, requests, writer))
        });
        let (directory, shared, requests, writer) =
            opening.await.map_err(|error| Error::Fatal(format!("opening the store was interrupted: {error}")))??;
        let clock = Arc::new(TokioClock::new());
        Ok(Self { inner: Arc::new(Inner { directory, shared, clock, requests: Some(requests), writer: Some(writer) }) })
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when the queue is closed and empty. Waiting for it (one fsync at most, usually nothing)
        // means that the directory is free again when this returns.
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

impl Inner {
    /// Sends a request and waits until it is durable.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().expect("only a drop takes it");
        let deadline = tokio::time::Instant::now() + WRITE_TIMEOUT;
        match tokio::time::timeout_at(deadline, requests.reserve()).await {
            Err(_) => return Err(Error::Unavailable(format!("the store's queue was full for {WRITE_TIMEOUT:?}"))),
            Ok(Err(_)) => return Err(Error::Fatal("the store's writer has ended".to_owned())),
            Ok(Ok(place)) => place.send(request(answer)),
        }
        match tokio::time::timeout_at(deadline, answered).await {
            Err(_) => Err(Error::Unknown(format!("the disk has not answered for {WRITE_TIMEOUT:?}"))),
            Ok(Err(_)) => Err(Error::Unknown("the store's writer ended before it answered".to_owned())),
            Ok(Ok(outcome)) => Ok(outcome),
        }
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
        let now = self.clock.now();
        if !self.shared.core().is_due(now) {
            return;
        }
        // Failing is logged by the writer; the next write tries again.
        let _ = self.ask(|answer| Request::Expire { now, answer }).await;
    }

    async fn end(&self, id: &SessionId) {
        let id = id.clone();
        let _ = self.ask(|answer| Request::EndSession { id, answer }).await;
    }
}

#[async_trait]
impl StateBackend for Embedded {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        limits::check_name(key)?;
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
        let now = self.inner.clock.now();
        self.inner.ask(|answer| Request::Txn { txn, now, answer }).await?
    }

    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        limits::check_prefix(prefix)?;
        Ok(self.inner.shared.watch(keyspace, prefix, from))
    }

    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error> {
        limits::check_session(&id)?;
        limits::check_value(value.len())?;
        check_ttl(ttl)?;
        let now = self.inner.clock.now();
        let opened = id.clone();
        self.inner.ask(|answer| Request::OpenSession { id: opened, ttl, value, now, answer }).await??;
        let host: Arc<dyn Host> = Arc::clone(&self.inner) as Arc<dyn Host>;
        let host: Weak<dyn Host> = Arc::downgrade(&host);
        Ok(LocalSession::start(id, ttl, now, Arc::clone(&self.inner.clock), host))
    }

    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
        lock::acquire(Arc::new(self.clone()), name, session).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.inner.shared.core().visible())
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.ask(|answer| Request::Compact { revision, answer }).await?
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let (_, in_use_bytes) = self.inner.shared.core().bytes();
        let name = self.inner.directory.display().to_string();
        let size_bytes = tokio::fs::metadata(self.inner.directory.join(disk::FILE)).await.map_or(0, |file| file.len());
        let member = Member { name, size_bytes, in_use_bytes, is_leader: true, ..Member::default() };
        Ok(StoreStatus { has_quota: false, members: vec![member] })
    }
}
