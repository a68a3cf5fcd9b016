//! The keeper of groups: one scheduler at a time, the one that holds the lock, adds up what jobs changed for their groups, and does what
//! follows from it.
//!
//! Invariants:
//! - Changes are added up in the order of the store's revisions, and each together with its deletion: so a group is seen complete
//!   exactly when it was, and each completion once.
//! - Every write compares the epoch, that the lock is still held, and the revision of each change that it adds up and of each sum that it
//!   overwrites: a write that lands late adds nothing twice. What it cannot write is read anew.
//! - Where a record of a namespace cannot be read (a newer version's), nothing of that namespace is added up: its sums are never wrong,
//!   only old.

mod end;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_graph::groups::{self, ChangeKind, GroupPath, JobEnd, Sums};
use muster_graph::ids::JobId;
use muster_proto::storage::{GroupRecord, GroupSums};
use muster_proto::v1;
use muster_state::{
    Change, Entry, Error, Guard, Key, Keyspace, Op, Revision, Scan, StateBackend, Txn, TxnOutcome, codec, keys,
};
use tokio::time::Instant;

use super::{audit, callbacks, cancels, changes, views};
use crate::load::send_until_known;
use crate::shared::Shared;
use crate::singleton;
use crate::updates::{self, Committed};
use end::End;

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
    let work = async |shared: Arc<Shared>, held| {
        tokio::select! {
            () = work(&shared, held) => {}
            () = audit::keep(&shared) => {}
        }
    };
    singleton::whenever_held(shared, LOCK, "keeps the groups", work).await;
}

/// Adds up, as long as the lock is held.
async fn work(shared: &Shared, held: Guard) {
    let mut unreadable = BTreeSet::new();
    loop {
        if shared.health.is_trusted() {
            match Keeper::new(shared, held.clone(), &unreadable).add_up().await {
                // What waits is listed anew.
                Ok(()) => continue,
                Err(End::Superseded) => return,
                Err(End::Unreadable(namespace, error)) => {
                    tracing::error!(namespace, %error, "a record of its groups cannot be read; they are not counted");
                    unreadable.insert(namespace);
                    continue;
                }
                Err(End::Store(error)) => tracing::info!(%error, "the groups' counts are added up again soon"),
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

struct Keeper<'a> {
    shared: &'a Shared,
    state: &'a dyn StateBackend,
    /// Holds as long as the lock is held.
    held: Guard,
    /// What was added up, and the revision of its record; 0: there is none.
    sums: BTreeMap<Name, (Sums, Revision)>,
    /// What groups were made with.
    records: BTreeMap<Name, Arc<GroupRecord>>,
    /// Groups that failed often enough, and are cancelled.
    given_up: BTreeSet<Name>,
    /// Updates, by namespace and token, whose jobs count once they are committed. The jobs themselves stay in the store, however many they are.
    held_back: BTreeSet<Name>,
    /// Namespaces in which something cannot be read.
    unreadable: &'a BTreeSet<String>,
}

/// What is to be written next.
#[derive(Default)]
struct Batch {
    changed: BTreeMap<Name, (Sums, Revision)>,
    /// Each with the revision at which it was read.
    added_up: Vec<(Key, Revision)>,
    guards: Vec<Guard>,
    cancels: Vec<Op>,
    callbacks: Vec<Op>,
}

impl Batch {
    fn writes(&self) -> usize {
        self.changed.len() + self.added_up.len() + self.cancels.len() + self.callbacks.len()
    }
}

impl<'a> Keeper<'a> {
    fn new(shared: &'a Shared, held: Guard, unreadable: &'a BTreeSet<String>) -> Self {
        Self {
            shared,
            state: &*shared.options.state,
            held,
            sums: BTreeMap::new(),
            records: BTreeMap::new(),
            given_up: BTreeSet::new(),
            held_back: BTreeSet::new(),
            unreadable,
        }
    }

    /// What waits, and then for a while what comes.
    async fn add_up(&mut self) -> Result<(), End> {
        let until = Instant::now() + LIST_EVERY;
        let mut waiting = Vec::new();
        let mut scan = Scan { prefix: keys::GROUP_CHANGES.to_owned(), ..Scan::default() };
        let listed = loop {
            let page = self.state.scan(Keyspace::GroupCounts, scan.clone()).await?;
            for entry in page.entries {
                if !self.hold_back(&entry)? {
                    waiting.push(entry);
                }
            }
            match page.next {
                Some(after) => scan = Scan { after: Some(after), at: Some(page.revision), ..scan },
                None => break page.revision,
            }
        };
        waiting.sort_by_key(|entry| entry.mod_revision);
        self.take(waiting).await?;
        let mut watch =
            self.state.watch(Keyspace::GroupCounts, keys::GROUP_CHANGES, listed + 1).await?.ready_chunks(64);
        loop {
            let look = if self.held_back.is_empty() { until } else { until.min(Instant::now() + PAUSE) };
            // Nothing but the waiting is given up when the time comes: a write has its outcome.
            let batches = match tokio::time::timeout_at(look, watch.next()).await {
                Ok(Some(batches)) => batches,
                Err(_) if look < until => Vec::new(),
                Ok(None) | Err(_) => return Ok(()),
            };
            let mut waiting = Vec::new();
            for batch in batches {
                for change in batch?.changes {
                    match change {
                        Change::Put(entry) if !self.hold_back(&entry)? => waiting.push(entry),
                        // Held back, or this keeper's own work.
                        Change::Put(_) | Change::Deleted { .. } => {}
                    }
                }
            }
            self.take(waiting).await?;
        }
    }

    /// Whether a change counts only once its update is committed.
    fn hold_back(&mut self, entry: &Entry) -> Result<bool, End> {
        if !changes::is_staging(&entry.name) {
            return Ok(false);
        }
        let Some(namespace) = keys::group_change_of(&entry.name) else { return Ok(true) };
        if !self.unreadable.contains(namespace) {
            let (_, token) = changes::decode(&entry.name, &entry.value)
                .map_err(|error| End::Unreadable(namespace.to_owned(), error))?;
            self.held_back.insert((namespace.to_owned(), token));
        }
        Ok(true)
    }

    /// Adds up what has come; and before it what was held back and counts now, since what jobs of an update changed comes after its commit.
    async fn take(&mut self, waiting: Vec<Entry>) -> Result<(), End> {
        let (mut batch, mut committed) = (Batch::default(), Committed::default());
        for update in self.held_back.clone() {
            if committed.has(self.state, &update.0, &update.1).await? {
                self.add_update(&mut batch, &update).await?;
                self.held_back.remove(&update);
            }
        }
        self.add_all(&mut batch, waiting).await?;
        self.write(batch).await
    }

    async fn add_update(&mut self, batch: &mut Batch, (namespace, token): &Name) -> Result<(), End> {
        let mut jobs: Vec<JobId> = Vec::new();
        updates::each_part(self.state, namespace, token, None, |_, part| {
            jobs.extend(part.jobs.iter().filter_map(|job| job.job_id.parse::<JobId>().ok()));
            Ok(())
        })
        .await
        .map_err(|error| End::Store(error).of(namespace))?;
        for some in jobs.chunks(WRITES_MOST) {
            let keys: Vec<Key> = some.iter().map(|job| changes::staging(namespace, *job)).collect();
            let (_, entries) = self.state.get_many(&keys).await?;
            // What is not there any more was added up before.
            self.add_all(batch, entries.into_iter().flatten().collect()).await?;
        }
        Ok(())
    }

    async fn add_all(&mut self, batch: &mut Batch, entries: Vec<Entry>) -> Result<(), End> {
        for entry in entries {
            let Some(namespace) = keys::group_change_of(&entry.name) else { continue };
            if !self.unreadable.contains(namespace) {
                self.add(batch, namespace, &entry).await.map_err(|end| end.of(namespace))?;
            }
            if batch.writes() >= WRITES_MOST {
                self.write(std::mem::take(batch)).await?;
            }
        }
        Ok(())
    }

    async fn add(&mut self, batch: &mut Batch, namespace: &str, entry: &Entry) -> Result<(), End> {
        let (change, _) = changes::decode(&entry.name, &entry.value)?;
        batch.added_up.push((Key::new(Keyspace::GroupCounts, entry.name.clone()), entry.mod_revision));
        let Some((path, change)) = change else { return Ok(()) };
        let path: GroupPath = match path.parse() {
            Ok(path) => path,
            Err(error) => {
                tracing::error!(name = entry.name, %error, "a change of the counts of what cannot be a group is passed over");
                return Ok(());
            }
        };
        let now = self.shared.now();
        for around in change.concerns(&path) {
            let name = (namespace.to_owned(), around.to_owned());
            let (mut sums, revision) = match batch.changed.get(&name) {
                Some(known) => known.clone(),
                None => self.sums(&name).await?,
            };
            if sums.add(&change, now) {
                tracing::info!(namespace, group = around, completions = sums.completions, "group is complete");
                self.call_back(batch, &name, &sums).await?;
            }
            if change.kind == ChangeKind::Ended(JobEnd::Failed) {
                self.cancel_if_failed_enough(batch, &name, &sums).await?;
            }
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
        if self.given_up.contains(name) {
            return Ok(());
        }
        let after = self.record(name).await?.spec.as_ref().map_or(0, |spec| spec.cancel_after_failures);
        if !groups::has_failed_enough(&sums.tally, after) {
            return Ok(());
        }
        let (namespace, path) = name;
        let Ok(path) = path.parse::<GroupPath>() else { return Ok(()) };
        let known = cancels::read(self.state, namespace).await?;
        self.given_up.insert(name.clone());
        if known.of(&path).is_some() {
            return Ok(());
        }
        let reason = format!("{} of its jobs failed", sums.tally.failed);
        let cancel = v1::GroupCancel { reason, at_ms: self.shared.now(), by_failures: true };
        let (key, ops) = cancels::writes(namespace, &path, cancel)?;
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

    /// In the transaction that sees the completion: there is one for each, and each only once.
    async fn call_back(&mut self, batch: &mut Batch, name: &Name, sums: &Sums) -> Result<(), End> {
        let record = self.record(name).await?;
        if record.spec.as_ref().is_none_or(|spec| spec.callback.is_empty()) {
            return Ok(());
        }
        let (namespace, path) = name;
        let cancels = cancels::read(self.state, namespace).await?;
        let is_cancelled = path.parse().is_ok_and(|path| cancels.strikes(&path).is_some());
        let callback = callbacks::record(namespace, path, &record, sums, views::shown(&sums.tally, is_cancelled));
        let key = keys::callback(namespace, path, sums.completions);
        batch.callbacks.push(Op::Put { key, value: codec::encode(&callback)?, session: None });
        Ok(())
    }

    async fn record(&mut self, name: &Name) -> Result<Arc<GroupRecord>, End> {
        if let Some(known) = self.records.get(name) {
            return Ok(Arc::clone(known));
        }
        let key = keys::group(&name.0, &name.1);
        // Only the root counts without a record. It may get one, and then the next list of what waits goes by that.
        let record = match self.state.get(&key).await? {
            Some(entry) => Arc::new(codec::decode::<GroupRecord>(&key, &entry.value)?),
            None => Arc::default(),
        };
        if self.records.len() >= KNOWN_MOST {
            self.records.clear();
        }
        self.records.insert(name.clone(), Arc::clone(&record));
        Ok(record)
    }

    async fn write(&mut self, batch: Batch) -> Result<(), End> {
        if batch.added_up.is_empty() {
            return Ok(());
        }
        let epoch = self.shared.presence().identity.epoch_revision;
        let guards = vec![Guard::AtRevision(keys::epoch(), epoch), self.held.clone()];
        let mut txn = Txn { guards, ..Txn::default() };
        txn.guards.extend(batch.guards);
        txn.ops.extend(batch.cancels);
        txn.ops.extend(batch.callbacks);
        for ((namespace, path), (sums, revision)) in &batch.changed {
            let key = keys::group_sums(namespace, path);
            let as_read = match revision {
                0 => Guard::Absent(key.clone()),
                revision => Guard::AtRevision(key.clone(), *revision),
            };
            txn.guards.push(as_read);
            txn.ops.push(Op::Put { key, value: codec::encode(&views::from_sums(sums))?, session: None });
        }
        for (key, revision) in batch.added_up {
            txn.guards.push(Guard::AtRevision(key.clone(), revision));
            txn.ops.push(Op::Delete(key));
        }
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

#[cfg(test)]
mod tests;
