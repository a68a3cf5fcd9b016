//! The keeper of groups: one scheduler at a time, the one that holds the lock, adds up what jobs changed for their groups, and does what
//! follows from it.
//!
//! Invariants:
//! - Changes are added up in the order of the store's revisions, and each together with its deletion: so a group is seen complete
//!   exactly when it was, and each completion once.
//! - Every write compares that the lock is still held, and the revision of each sum that it overwrites. What it cannot write is read
//!   anew.
//! - A change that cannot be read (a newer version's) keeps its place, and those of its namespace behind it wait: sums are
//!   never wrong, only old, and who shows them adds what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::groups::{self, GroupPath, Sums};
use muster_proto::storage::{GroupRecord, GroupSums};
use muster_proto::v1;
use muster_state::{
    Change, Entry, Error, Guard, Key, Keyspace, Op, Revision, Scan, StateBackend, Txn, TxnOutcome, codec, keys,
};

use super::{cancels, changes, views};
use crate::load::send_until_known;
use crate::shared::Shared;

/// The lock's name.
const LOCK: &str = "groups";
/// After an error of the store.
const PAUSE: Duration = Duration::from_secs(1);
/// A watch only makes sooner what a list alone would bring about.
const LIST_EVERY: Duration = Duration::from_secs(20);
/// Writes in one transaction, before the one that goes over it.
const WRITES_MOST: usize = 100;
/// Sums that are kept in memory; beyond it all are read anew.
const KNOWN_MOST: usize = 50_000;

/// A group, by its namespace and path.
type Name = (String, String);

/// Is the keeper whenever it holds the lock, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        let session = shared.presence().session;
        let lock = tokio::select! {
            lock = shared.options.state.lock(LOCK, &session) => lock,
            () = session.lost() => Err(Error::SessionLost),
        };
        match lock {
            Ok(lock) => {
                tracing::info!("this scheduler keeps the groups");
                tokio::select! {
                    () = work(&shared, lock.guard()) => {}
                    () = session.lost() => {}
                }
                tracing::info!("another scheduler keeps the groups now");
            }
            Err(error) => tracing::debug!(%error, "no place in the queue of the keepers of groups"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Adds up, as long as the lock is held.
async fn work(shared: &Shared, held: Guard) {
    loop {
        if shared.health.is_trusted() {
            let mut keeper = Keeper::new(shared, held.clone());
            match tokio::time::timeout(LIST_EVERY, keeper.add_up()).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(End::Superseded)) => return,
                Ok(Err(End::Store(error))) => tracing::info!(%error, "the groups' counts are added up again soon"),
            }
        }
        // Its place in the watch is gone either way; what is waiting is listed anew.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Why adding up ended.
enum End {
    Superseded,
    Store(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    state: &'a dyn StateBackend,
    /// Holds as long as the lock is held.
    held: Guard,
    /// What was added up, and the revision of its record; 0: there is none.
    sums: BTreeMap<Name, (Sums, Revision)>,
    /// After how many failures groups cancel themselves.
    thresholds: BTreeMap<Name, u64>,
    /// Namespaces in which something cannot be read.
    stuck: BTreeSet<String>,
}

/// What is to be written next.
#[derive(Default)]
struct Batch {
    changed: BTreeMap<Name, (Sums, Revision)>,
    added_up: Vec<Key>,
    guards: Vec<Guard>,
    cancels: Vec<Op>,
    /// Groups that are cancelled with it, each with its namespace.
    cancelled: BTreeMap<Name, ()>,
}

impl Batch {
    fn writes(&self) -> usize {
        self.changed.len() + self.added_up.len() + self.cancels.len()
    }
}

impl<'a> Keeper<'a> {
    fn new(shared: &'a Shared, held: Guard) -> Self {
        Self {
            shared,
            state: &*shared.options.state,
            held,
            sums: BTreeMap::new(),
            thresholds: BTreeMap::new(),
            stuck: BTreeSet::new(),
        }
    }

    /// What waits, and then what comes.
    async fn add_up(&mut self) -> Result<(), End> {
        let mut waiting = Vec::new();
        let mut scan = Scan { prefix: keys::GROUP_CHANGES.to_owned(), ..Scan::default() };
        let listed = loop {
            let page = self.state.scan(Keyspace::GroupCounts, scan.clone()).await?;
            waiting.extend(page.entries);
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
                None => break page.revision,
            }
        };
        waiting.sort_by_key(|entry| entry.mod_revision);
        self.take(waiting.into()).await?;
        let mut watch =
            self.state.watch(Keyspace::GroupCounts, keys::GROUP_CHANGES, listed + 1).await?.ready_chunks(64);
        while let Some(batches) = watch.next().await {
            let mut waiting = VecDeque::new();
            for batch in batches {
                waiting.extend(batch?.changes.into_iter().filter_map(|change| match change {
                    Change::Put(entry) => Some(entry),
                    // This keeper's own work.
                    Change::Deleted { .. } => None,
                }));
            }
            self.take(waiting).await?;
        }
        Ok(())
    }

    async fn take(&mut self, mut waiting: VecDeque<Entry>) -> Result<(), End> {
        let mut batch = Batch::default();
        while let Some(entry) = waiting.pop_front() {
            self.add(&mut batch, &entry).await?;
            if batch.writes() >= WRITES_MOST || waiting.is_empty() {
                self.write(std::mem::take(&mut batch)).await?;
            }
        }
        Ok(())
    }

    async fn add(&mut self, batch: &mut Batch, entry: &Entry) -> Result<(), End> {
        let Some((namespace, _)) = keys::group_change_of(&entry.name) else { return Ok(()) };
        if self.stuck.contains(namespace) {
            return Ok(());
        }
        let change = match changes::decode(&entry.name, &entry.value) {
            Ok(change) => change,
            Err(error) => {
                tracing::error!(name = entry.name, %error, "a change of a group's counts cannot be read; its namespace's are not added up");
                self.stuck.insert(namespace.to_owned());
                return Ok(());
            }
        };
        batch.added_up.push(Key::new(Keyspace::GroupCounts, entry.name.clone()));
        let Some((path, change)) = change else { return Ok(()) };
        let path: GroupPath = match path.parse() {
            Ok(path) => path,
            Err(error) => {
                tracing::error!(name = entry.name, %error, "a change of the counts of what cannot be a group is passed over");
                return Ok(());
            }
        };
        let now = self.shared.now();
        for around in path.outwards() {
            let name = (namespace.to_owned(), around.to_owned());
            let (mut sums, revision) = match batch.changed.get(&name) {
                Some(known) => known.clone(),
                None => self.sums(&name).await?,
            };
            if sums.add(&change, now) {
                tracing::info!(namespace, group = around, completions = sums.completions, "group is complete");
            }
            self.cancel_if_failed_enough(batch, &name, &sums).await?;
            batch.changed.insert(name, (sums, revision));
        }
        Ok(())
    }

    async fn sums(&mut self, name: &Name) -> Result<(Sums, Revision), End> {
        if let Some(known) = self.sums.get(name) {
            return Ok(known.clone());
        }
        let key = keys::group_sums(&name.0, &name.1);
        let found = match self.state.get(&key).await? {
            Some(entry) => (views::to_sums(codec::decode::<GroupSums>(&key, &entry.value)?), entry.mod_revision),
            None => (Sums::default(), 0),
        };
        if self.sums.len() >= KNOWN_MOST {
            self.sums.clear();
        }
        self.sums.insert(name.clone(), found.clone());
        Ok(found)
    }

    /// At the failure itself, in the transaction that counts it.
    async fn cancel_if_failed_enough(&mut self, batch: &mut Batch, name: &Name, sums: &Sums) -> Result<(), End> {
        if sums.tally.failed == 0 || batch.cancelled.contains_key(name) {
            return Ok(());
        }
        let after = self.threshold(name).await?;
        if !groups::has_failed_enough(&sums.tally, after) {
            return Ok(());
        }
        let (namespace, path) = name;
        let Ok(path) = path.parse::<GroupPath>() else { return Ok(()) };
        let known = cancels::read(self.state, namespace).await?;
        batch.cancelled.insert(name.clone(), ());
        if known.of(&path).is_some() {
            return Ok(());
        }
        let reason = format!("{} of its jobs failed", sums.tally.failed);
        let cancel = v1::GroupCancel { reason, at_ms: self.shared.now(), by_failures: true };
        let (key, ops) = cancels::writes(namespace, &path, cancel, &known)?;
        tracing::info!(namespace, group = %path, failed = sums.tally.failed, "group cancels itself");
        batch.guards.push(Guard::Absent(key));
        // Two groups of one namespace in one transaction write its head once.
        for op in ops {
            let written = |known: &Op| matches!((known, &op), (Op::Put { key: one, .. }, Op::Put { key: other, .. }) if one == other);
            if !batch.cancels.iter().any(written) {
                batch.cancels.push(op);
            }
        }
        Ok(())
    }

    async fn threshold(&mut self, name: &Name) -> Result<u64, End> {
        if let Some(known) = self.thresholds.get(name) {
            return Ok(*known);
        }
        let key = keys::group(&name.0, &name.1);
        let Some(entry) = self.state.get(&key).await? else {
            // Only the root counts without a record, and it may get one.
            return Ok(0);
        };
        let record: GroupRecord = codec::decode(&key, &entry.value)?;
        let after = record.spec.unwrap_or_default().cancel_after_failures;
        if self.thresholds.len() >= KNOWN_MOST {
            self.thresholds.clear();
        }
        self.thresholds.insert(name.clone(), after);
        Ok(after)
    }

    async fn write(&mut self, batch: Batch) -> Result<(), End> {
        if batch.added_up.is_empty() {
            return Ok(());
        }
        let mut txn = Txn { guards: vec![self.held.clone()], ..Txn::default() };
        txn.guards.extend(batch.guards);
        txn.ops.extend(batch.cancels);
        for ((namespace, path), (sums, revision)) in &batch.changed {
            let key = keys::group_sums(namespace, path);
            let as_read = match revision {
                0 => Guard::Absent(key.clone()),
                revision => Guard::AtRevision(key.clone(), *revision),
            };
            txn.guards.push(as_read);
            txn.ops.push(Op::Put { key, value: codec::encode(&views::from_sums(sums))?, session: None });
        }
        txn.ops.extend(batch.added_up.into_iter().map(Op::Delete));
        match send_until_known(self.state, txn).await? {
            TxnOutcome::Committed(revision) => {
                let now = batch.changed.into_iter().map(|(name, (sums, _))| (name, (sums, revision)));
                self.sums.extend(now);
                Ok(())
            }
            // By an earlier sending of this, or another keeper: what is so is read anew, if it is this one's to write at all.
            TxnOutcome::Refused { .. } => {
                let holds = Txn { guards: vec![self.held.clone()], ..Txn::default() };
                match send_until_known(self.state, holds).await? {
                    TxnOutcome::Committed(_) => Err(End::Store(Error::Unavailable("sums have changed".to_owned()))),
                    TxnOutcome::Refused { .. } => Err(End::Superseded),
                }
            }
        }
    }
}
