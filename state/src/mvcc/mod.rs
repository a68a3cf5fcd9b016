//! The in-process store: every version of every key, one global revision, transactions as etcd evaluates them.
//!
//! Pure data, no lock, no clock of its own, no I/O: [`crate::Memory`] puts a mutex around it, [`crate::Embedded`] adds
//! a disk. Invariants:
//! - `log` has exactly one element per revision from `log_first` to `head`; each names what that revision wrote.
//! - Versions of a key are in rising order of revision; the last one is the present, a version without value is a
//!   deletion.
//! - `visible <= head`. Readers and watches see up to `visible`; guards are judged at `head`. They differ only while a
//!   durable store is writing: what is not on disk yet is seen by nobody but the transactions queued behind it.
//! - A lease knows exactly the live keys that name it.

mod lease;
mod read;
mod shared;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use lease::session_in_use;
pub(crate) use shared::Shared;

use crate::{Entry, Error, Guard, Key, Keyspace, Op, Revision, SessionId, Txn, TxnOutcome};

/// An empty store has revision 1, as etcd's has; the first write makes revision 2.
pub(crate) const FIRST_REVISION: Revision = 1;

/// One version of a key.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) create_revision: Revision,
    pub(crate) revision: Revision,
    /// Its place among the writes of its revision.
    pub(crate) place: u32,
    /// `None`: deleted.
    pub(crate) value: Option<Bytes>,
    pub(crate) session: Option<SessionId>,
}

/// A write of one revision; the version itself is with its key.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) keyspace: Keyspace,
    pub(crate) name: Arc<str>,
}

/// The live keys of a session, in the order of their full names.
type Held = BTreeSet<(&'static str, Arc<str>, Keyspace)>;

type Histories = BTreeMap<Arc<str>, Vec<Version>>;

/// A session's hold on the store.
#[derive(Debug, Clone)]
struct Lease {
    expires_at: Duration,
    ttl: Duration,
    keys: Held,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    keyspaces: [Histories; Keyspace::ALL.len()],
    log: VecDeque<Vec<Written>>,
    log_first: Revision,
    head: Revision,
    visible: Revision,
    leases: BTreeMap<SessionId, Lease>,
    /// Every id that ever had a lease here: an id is used once.
    used: BTreeSet<SessionId>,
}

impl Core {
    pub(crate) fn new() -> Self {
        Self {
            keyspaces: Default::default(),
            log: VecDeque::new(),
            log_first: FIRST_REVISION + 1,
            head: FIRST_REVISION,
            visible: FIRST_REVISION,
            leases: BTreeMap::new(),
            used: BTreeSet::new(),
        }
    }

    /// What transactions are judged against.
    pub(crate) fn head(&self) -> Revision {
        self.head
    }

    /// What readers see.
    pub(crate) fn visible(&self) -> Revision {
        self.visible
    }

    /// Lets readers see everything written so far. Says from which revision on there is something new.
    pub(crate) fn publish(&mut self) -> Revision {
        let from = self.visible + 1;
        self.visible = self.head;
        from
    }

    fn histories(&self, keyspace: Keyspace) -> &Histories {
        &self.keyspaces[keyspace as usize]
    }

    /// The newest version, if it is not a deletion. At `head`.
    fn present(&self, keyspace: Keyspace, name: &str) -> Option<&Version> {
        self.histories(keyspace).get(name)?.last().filter(|version| version.value.is_some())
    }

    fn present_entry(&self, key: &Key) -> Option<Entry> {
        self.present(key.keyspace, &key.name).and_then(|version| version.to_entry(&key.name))
    }

    /// All or nothing, at one instant. A transaction that changes nothing (no operation, or deletions of what is not
    /// there) commits at the present revision and makes no new one.
    pub(crate) fn apply(&mut self, txn: Txn) -> Result<TxnOutcome, Error> {
        if !txn.guards.iter().all(|guard| self.holds(guard)) {
            let read = txn.read_on_failure.iter().map(|key| self.present_entry(key)).collect();
            return Ok(TxnOutcome::Refused { revision: self.head, read });
        }
        let leased = txn.ops.iter().filter_map(|op| match op {
            Op::Put { session, .. } => session.as_ref(),
            _ => None,
        });
        for id in leased {
            if !self.leases.contains_key(id) {
                return Err(Error::SessionLost);
            }
        }
        let mut written = Vec::new();
        for op in txn.ops {
            match op {
                Op::Put { key, value, session } => {
                    self.write(key.keyspace, &key.name, Some(value), session, &mut written);
                }
                Op::Delete(key) => {
                    if self.present(key.keyspace, &key.name).is_some() {
                        self.write(key.keyspace, &key.name, None, None, &mut written);
                    }
                }
                Op::DeleteRange { keyspace, from, to } => {
                    for name in self.present_names(keyspace, &from, &to) {
                        self.write(keyspace, &name, None, None, &mut written);
                    }
                }
            }
        }
        self.seal(written);
        Ok(TxnOutcome::Committed(self.head))
    }

    fn present_names(&self, keyspace: Keyspace, from: &str, to: &str) -> Vec<Arc<str>> {
        if from >= to {
            return Vec::new();
        }
        self.histories(keyspace)
            .range::<str, _>((Bound::Included(from), Bound::Excluded(to)))
            .filter(|(_, versions)| versions.last().is_some_and(|version| version.value.is_some()))
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// Adds a version to the revision that is being made.
    fn write(
        &mut self,
        keyspace: Keyspace,
        name: &str,
        value: Option<Bytes>,
        session: Option<SessionId>,
        written: &mut Vec<Written>,
    ) {
        let revision = self.head + 1;
        let place = u32::try_from(written.len()).expect("a revision's writes are limited far below 2^32");
        let histories = &mut self.keyspaces[keyspace as usize];
        let name: Arc<str> =
            histories.get_key_value(name).map_or_else(|| Arc::from(name), |(name, _)| Arc::clone(name));
        let versions = histories.entry(Arc::clone(&name)).or_default();
        let old = versions.last().filter(|version| version.value.is_some());
        let create_revision = old.map_or(revision, |old| old.create_revision);
        let old_session = old.and_then(|old| old.session.clone());
        versions.push(Version { create_revision, revision, place, value, session: session.clone() });
        let held = (keyspace.name(), Arc::clone(&name), keyspace);
        if let Some(lease) = old_session.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(&held);
        }
        if let Some(lease) = session.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(held);
        }
        written.push(Written { keyspace, name });
    }

    /// Ends the revision that is being made, if anything was written.
    fn seal(&mut self, written: Vec<Written>) {
        if !written.is_empty() {
            self.head += 1;
            self.log.push_back(written);
        }
    }

    fn holds(&self, guard: &Guard) -> bool {
        let schedulers = Keyspace::Schedulers;
        match guard {
            Guard::Absent(key) => self.present(key.keyspace, &key.name).is_none(),
            Guard::Present(key) => self.present(key.keyspace, &key.name).is_some(),
            // As with etcd, what is absent is at revision 0.
            Guard::AtRevision(key, revision) => {
                self.present(key.keyspace, &key.name).map_or(0, |version| version.revision) == *revision
            }
            Guard::SessionAlive(id) => self.present(schedulers, &id.0).is_some(),
            Guard::SessionGone(id) => self.present(schedulers, &id.0).is_none(),
            Guard::NothingNewer { keyspace, prefix, than } => self
                .below(*keyspace, prefix, None)
                .filter_map(|(_, versions)| versions.last())
                .all(|version| version.value.is_none() || version.revision <= *than),
        }
    }

    /// The writes of one revision with their versions, as a durable store needs them.
    pub(crate) fn written(&self, revision: Revision) -> impl Iterator<Item = (&Written, &Version)> {
        let place = revision.checked_sub(self.log_first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.log.get(place)).into_iter().flatten().map(move |written| {
            let version = self
                .histories(written.keyspace)
                .get(&written.name)
                .and_then(|versions| find(versions, revision))
                .expect("a logged version is kept as long as its revision is in the log");
            (written, version)
        })
    }

    /// The oldest revision that is wholly there: it can be watched from, and read at.
    pub(crate) fn oldest(&self) -> Revision {
        self.log_first
    }

    /// Forgets what only revisions before `revision` can see: afterwards the oldest one that can be watched from or read at
    /// is `revision`. Returns where the forgotten versions were. Nothing that is not visible yet is touched.
    pub(crate) fn compact(&mut self, revision: Revision) -> Result<Vec<(Revision, u32)>, Error> {
        if revision > self.visible + 1 {
            return Err(future(revision, self.visible));
        }
        let mut forgotten = Vec::new();
        while self.log_first < revision {
            for written in self.log.pop_front().expect("the log reaches up to head") {
                let histories = &mut self.keyspaces[written.keyspace as usize];
                let Some(versions) = histories.get_mut(&written.name) else { continue };
                // Of the versions before `revision`, the last one still shows at `revision`, unless it is a deletion.
                let before = versions.partition_point(|version| version.revision < revision);
                let keep = usize::from(before > 0 && versions[before - 1].value.is_some());
                forgotten.extend(versions.drain(..before - keep).map(|version| (version.revision, version.place)));
                if versions.is_empty() {
                    histories.remove(&written.name);
                }
            }
            self.log_first += 1;
        }
        Ok(forgotten)
    }

    /// Puts a stored version back. Versions come in the order of (revision, place).
    pub(crate) fn restore(&mut self, keyspace: Keyspace, name: &str, version: Version) {
        let revision = version.revision;
        let name: Arc<str> = Arc::from(name);
        if revision >= self.log_first {
            let place = usize::try_from(revision - self.log_first).expect("revisions of one store fit into memory");
            while self.log.len() <= place {
                self.log.push_back(Vec::new());
            }
            self.log[place].push(Written { keyspace, name: Arc::clone(&name) });
        }
        self.keyspaces[keyspace as usize].entry(name).or_default().push(version);
    }

    /// Before `restore`: where the history begins and ends.
    pub(crate) fn set_bounds(&mut self, oldest: Revision, head: Revision) {
        self.log_first = oldest;
        self.head = head;
        self.visible = head;
    }

    /// After `restore`: the history must be whole; and whatever a session of an earlier process held goes, each session's
    /// keys at one revision.
    pub(crate) fn finish_restore(&mut self) -> Result<(), String> {
        if self.log_first + self.log.len() as u64 != self.head + 1 || self.log.iter().any(Vec::is_empty) {
            return Err(format!(
                "its history from revision {} to {} is not whole: restore it from a backup",
                self.log_first, self.head
            ));
        }
        let mut held: BTreeMap<SessionId, Held> = BTreeMap::new();
        for keyspace in Keyspace::ALL {
            for (name, versions) in self.histories(keyspace) {
                if let Some(Version { value: Some(_), session: Some(id), .. }) = versions.last() {
                    held.entry(id.clone()).or_default().insert((keyspace.name(), Arc::clone(name), keyspace));
                }
            }
        }
        for (id, keys) in held {
            self.used.insert(id);
            self.delete_held(keys);
        }
        Ok(())
    }
}

impl Version {
    fn to_entry(&self, name: &str) -> Option<Entry> {
        self.value.as_ref().map(|value| Entry {
            name: name.to_owned(),
            value: value.clone(),
            create_revision: self.create_revision,
            mod_revision: self.revision,
        })
    }
}

/// The version made by exactly this revision.
fn find(versions: &[Version], revision: Revision) -> Option<&Version> {
    versions.binary_search_by_key(&revision, |version| version.revision).ok().map(|place| &versions[place])
}

fn future(asked: Revision, newest: Revision) -> Error {
    Error::Fatal(format!(
        "revision {asked} is not there yet, the newest is {newest}: was the store restored from an older backup?"
    ))
}
