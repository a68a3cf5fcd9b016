//! Faults on purpose: a store that is slow, forgetful, corrupt or silent where a test says so.
//!
//! [`Faulty`] stands before any other store. Each injected rule says for which operations on which keyspace, and how often,
//! and counts how often it struck: a fault test asserts that its fault fired.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    Alarm, Entry, Error, Key, Keyspace, Lock, Op, Page, Revision, Scan, Session, SessionId, StateBackend, StoreStatus,
    Txn, TxnOutcome, WatchStream, lock,
};

/// What a rule applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `get`, `get_many`, `get_from_prefix`, `scan` and `scan_keys`.
    Read,
    /// `put`, `put_txn`, `mv` and `delete`; by the keyspaces that the transaction writes to.
    Write,
    /// `watch`, when it is opened.
    Watch,
    /// `open_session`; its keyspace is Schedulers.
    Session,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It takes this much longer.
    Delay(Duration),
    /// Nothing is done, and the caller is told so.
    Unavailable,
    /// Reads only: what is in the keyspace is not found.
    Missing,
    /// Reads only: one byte of each value is changed.
    Corrupt,
    /// Writes only: refused, as there is no room. As long as it lasts the store's members say so, too.
    NoSpace,
    /// Writes only: nothing is done, and the caller is not told.
    UnknownNotDone,
    /// Writes only: it is done, and the caller is not told.
    UnknownDone,
    /// Writes only: the caller is not told, and it is done after this time.
    UnknownDoneLater(Duration),
}

#[derive(Debug)]
struct Rule {
    keyspace: Option<Keyspace>,
    /// Reads only: of names that begin with this.
    prefix: String,
    operation: Operation,
    fault: Fault,
    left: AtomicUsize,
    fired: AtomicUsize,
}

/// A rule that was injected. It stays when this is dropped.
#[derive(Debug, Clone)]
pub struct Injected(Arc<Rule>);

impl Injected {
    /// How often it has struck.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.0.fired.load(Ordering::SeqCst)
    }

    /// Ends it.
    pub fn clear(&self) {
        self.0.left.store(0, Ordering::SeqCst);
    }
}

/// A store with faults. Clones share them.
#[derive(Debug, Clone)]
pub struct Faulty {
    inner: Arc<dyn StateBackend>,
    /// Read at every call, written when a test injects.
    rules: Arc<Mutex<Vec<Arc<Rule>>>>,
}

impl Faulty {
    /// Without faults, until some are injected.
    #[must_use]
    pub fn new(inner: Arc<dyn StateBackend>) -> Self {
        Self { inner, rules: Arc::default() }
    }

    /// From now on, `operation` on `keyspace` (`None`: on any) suffers `fault`, at most `times` times.
    pub fn inject(
        &self,
        keyspace: impl Into<Option<Keyspace>>,
        operation: Operation,
        fault: Fault,
        times: usize,
    ) -> Injected {
        self.add(keyspace.into(), String::new(), operation, fault, times)
    }

    /// From now on, reads in `keyspace` of names that begin with `prefix` suffer `fault`, at most `times` times. A read
    /// that asks for more than the prefix is not concerned.
    pub fn inject_reads(&self, keyspace: Keyspace, prefix: &str, fault: Fault, times: usize) -> Injected {
        self.add(Some(keyspace), prefix.to_owned(), Operation::Read, fault, times)
    }

    fn add(
        &self,
        keyspace: Option<Keyspace>,
        prefix: String,
        operation: Operation,
        fault: Fault,
        times: usize,
    ) -> Injected {
        let rule = Arc::new(Rule {
            keyspace,
            prefix,
            operation,
            fault,
            left: AtomicUsize::new(times),
            fired: AtomicUsize::new(0),
        });
        self.rules().push(Arc::clone(&rule));
        Injected(rule)
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Rule>>> {
        self.rules.lock().expect("a vector's own methods do not panic")
    }

    /// The faults that strike now; each is used up by one.
    fn strike(&self, operation: Operation, keyspaces: &[Keyspace], name: &str) -> Vec<Fault> {
        let mut rules = self.rules();
        rules.retain(|rule| rule.left.load(Ordering::SeqCst) > 0);
        rules
            .iter()
            .filter(|rule| rule.operation == operation)
            .filter(|rule| rule.keyspace.is_none_or(|keyspace| keyspaces.contains(&keyspace)))
            .filter(|rule| name.starts_with(&rule.prefix))
            .filter(|rule| {
                rule.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
            })
            .map(|rule| {
                rule.fired.fetch_add(1, Ordering::SeqCst);
                rule.fault
            })
            .collect()
    }

    /// What happens before the call: delays, and refusals.
    async fn before(&self, operation: Operation, keyspaces: &[Keyspace]) -> Result<Vec<Fault>, Error> {
        self.before_named(operation, keyspaces, "").await
    }

    async fn before_named(
        &self,
        operation: Operation,
        keyspaces: &[Keyspace],
        name: &str,
    ) -> Result<Vec<Fault>, Error> {
        let faults = self.strike(operation, keyspaces, name);
        for fault in &faults {
            match fault {
                Fault::Delay(by) => tokio::time::sleep(*by).await,
                Fault::Unavailable => return Err(Error::Unavailable("an injected fault".to_owned())),
                Fault::NoSpace => return Err(Error::NoSpace("an injected fault".to_owned())),
                _ => {}
            }
        }
        Ok(faults)
    }

    async fn read_page(
        &self,
        keyspace: Keyspace,
        prefix: &str,
        read: impl Future<Output = Result<Page, Error>> + Send,
    ) -> Result<Page, Error> {
        let faults = self.before_named(Operation::Read, &[keyspace], prefix).await?;
        let mut page = read.await?;
        if faults.contains(&Fault::Missing) {
            page.entries.clear();
            page.next = None;
        }
        page.entries.iter_mut().for_each(|entry| damage(&faults, entry));
        Ok(page)
    }
}

/// Changes a value so that no decoder can take it for what was written.
fn damage(faults: &[Fault], entry: &mut Entry) {
    if faults.contains(&Fault::Corrupt) {
        let mut value = entry.value.to_vec();
        match value.len() / 2 {
            0 => value.push(0xff),
            middle => value[middle] ^= 0xff,
        }
        entry.value = Bytes::from(value);
    }
}

fn unknown() -> Error {
    Error::Unknown("an injected fault".to_owned())
}

#[async_trait]
impl StateBackend for Faulty {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        let faults = self.before_named(Operation::Read, &[key.keyspace], &key.name).await?;
        let mut found = self.inner.get(key).await?;
        if faults.contains(&Fault::Missing) {
            return Ok(None);
        }
        found.iter_mut().for_each(|entry| damage(&faults, entry));
        Ok(found)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<(Revision, Vec<Option<Entry>>), Error> {
        let keyspaces: Vec<Keyspace> = keys.iter().map(|key| key.keyspace).collect();
        let faults = self.before(Operation::Read, &keyspaces).await?;
        let (revision, mut found) = self.inner.get_many(keys).await?;
        if faults.contains(&Fault::Missing) {
            found.fill(None);
        }
        found.iter_mut().flatten().for_each(|entry| damage(&faults, entry));
        Ok((revision, found))
    }

    async fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Result<Page, Error> {
        self.read_page(keyspace, prefix, self.inner.get_from_prefix(keyspace, prefix)).await
    }

    async fn scan(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        let prefix = scan.prefix.clone();
        self.read_page(keyspace, &prefix, self.inner.scan(keyspace, scan)).await
    }

    async fn scan_keys(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error> {
        let prefix = scan.prefix.clone();
        self.read_page(keyspace, &prefix, self.inner.scan_keys(keyspace, scan)).await
    }

    async fn put_txn(&self, txn: Txn) -> Result<TxnOutcome, Error> {
        let keyspaces: Vec<Keyspace> = txn
            .ops
            .iter()
            .map(|op| match op {
                Op::Put { key, .. } | Op::Delete(key) => key.keyspace,
                Op::DeleteRange { keyspace, .. } => *keyspace,
            })
            .collect();
        for fault in self.before(Operation::Write, &keyspaces).await? {
            match fault {
                Fault::UnknownNotDone => return Err(unknown()),
                Fault::UnknownDone => {
                    self.inner.put_txn(txn).await?;
                    return Err(unknown());
                }
                Fault::UnknownDoneLater(after) => {
                    let inner = Arc::clone(&self.inner);
                    tokio::spawn(async move {
                        tokio::time::sleep(after).await;
                        // Whether its guards still hold then is what the test is about.
                        let _ = inner.put_txn(txn).await;
                    });
                    return Err(unknown());
                }
                Fault::Delay(_) | Fault::Unavailable | Fault::NoSpace | Fault::Missing | Fault::Corrupt => {}
            }
        }
        self.inner.put_txn(txn).await
    }

    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error> {
        self.before(Operation::Watch, &[keyspace]).await?;
        self.inner.watch(keyspace, prefix, from).await
    }

    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error> {
        self.before(Operation::Session, &[Keyspace::Schedulers]).await?;
        self.inner.open_session(id, ttl, value).await
    }

    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error> {
        lock::acquire(Arc::new(self.clone()), name, session).await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.inner.revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn status(&self) -> Result<StoreStatus, Error> {
        let mut status = self.inner.status().await?;
        let is_full = |rule: &Arc<Rule>| rule.fault == Fault::NoSpace && rule.left.load(Ordering::SeqCst) > 0;
        if self.rules().iter().any(is_full) {
            status.has_quota = true;
            status.members.iter_mut().for_each(|member| member.alarms.push(Alarm::NoSpace));
        }
        Ok(status)
    }

    async fn defragment(&self, member: u64) -> Result<(), Error> {
        self.inner.defragment(member).await
    }

    async fn disarm_no_space(&self, member: u64) -> Result<(), Error> {
        self.inner.disarm_no_space(member).await
    }
}
