//! What the cancel of a group costs the store, as seen by the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use muster_integration::cluster::scheduler_options;
use muster_scheduler::Scheduler;
use muster_state::{
    Entry, Error, Key, Keyspace, Lock, Page, Revision, Scan, Session, SessionId, StateBackend, StoreStatus, Txn,
    TxnOutcome, WatchStream,
};

use super::*;

/// A store that counts the keys that it is asked to read, compare and write.
#[derive(Debug)]
struct Counted {
    inner: muster_state::Etcd,
    operations: Arc<AtomicUsize>,
}

impl Counted {
    fn count(&self, operations: usize) {
        self.operations.fetch_add(operations, Ordering::SeqCst);
    }
}

#[async_trait]
impl StateBackend for Counted {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        self.count(1);
        self.inner.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<(Revision, Vec<Option<Entry>>), Error> {
        self.count(keys.len());
        self.inner.get_many(keys).await
    }

    async fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Result<Page, Error> {
        let page = self.inner.get_from_prefix(keyspace, prefix).await?;
        self.count(1 + page.entries.len());
        Ok(page)
    }

    async fn scan(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        let page = self.inner.scan(keyspace, scan).await?;
        self.count(1 + page.entries.len());
        Ok(page)
    }

    async fn scan_keys(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        let page = self.inner.scan_keys(keyspace, scan).await?;
        self.count(1 + page.entries.len());
        Ok(page)
    }

    async fn put_txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        self.count(txn.guards.len() + txn.ops.len());
        self.inner.put_txn(txn).await
    }

    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        self.inner.watch(keyspace, prefix, from).await
    }

    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error> {
        self.inner.open_session(id, ttl, value).await
    }

    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
        self.inner.lock(name, session).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.inner.revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        self.inner.status().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_acknowledgement_of_a_cancel_costs_at_most_ten_operations_however_many_jobs_there_are() {
    // In each far more jobs than operations are allowed; one that costs something for each of them cannot pass by the others.
    const GROUPS: [(&str, usize); 5] = [("e/f/g/h/i", 60), ("b", 60), ("c", 60), ("d", 60), ("e", 60)];
    let etcd = Etcd::start().await.unwrap();
    let operations = Arc::new(AtomicUsize::new(0));
    let state = Arc::new(Counted { inner: etcd.store("default"), operations: Arc::clone(&operations) });
    // Nobody looks at anything while nothing happens: there is no executor, and the jobs wait for one.
    let quiet = muster_scheduler::Options { scan_every: Duration::from_secs(3600), ..scheduler_options("one", state) };
    let scheduler = Scheduler::start(quiet).await.unwrap();
    let client = client(&[scheduler.address()]).await;
    let world = World::new();
    for path in ["b", "c", "d", "e", "e/f", "e/f/g", "e/f/g/h", "e/f/g/h/i"] {
        client.create_group(group(path, v1::GroupSpec::default())).await.unwrap();
    }
    let mut jobs = Vec::new();
    for (path, count) in GROUPS {
        for _ in 0..count {
            let spec = world.job(&format!("{{name: j, group: {path}, tasks: 100, run: 'true'}}"));
            jobs.push(client.submit(spec, None).await.unwrap().job);
        }
    }
    let mut costs = Vec::new();
    for (path, _) in GROUPS {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = operations.load(Ordering::SeqCst);
        client.cancel_group("", path, "enough").await.unwrap();
        costs.push(operations.load(Ordering::SeqCst) - before);
    }
    // What follows from a cancel may begin before its answer is here; it does not each time.
    let least = costs.iter().min().unwrap();
    assert!((1..=10).contains(least), "{costs:?}");
    for job in jobs {
        assert_eq!(is_over(&client, job).await.state(), v1::JobState::Cancelled);
    }
}
