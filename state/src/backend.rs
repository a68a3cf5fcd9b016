//! The trait that every store implements, and the values it speaks in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::{Error, Keyspace, StoreStatus, moving};

/// A point in the store's history. Rises with every write; 0 is before the first.
pub type Revision = u64;

/// etcd refuses more than 128 operations in one list of a transaction (its default max-txn-ops).
pub const TXN_OPS_MAX: usize = 128;
/// etcd refuses requests over 1.5 MiB (its default max-request-bytes); the rest is room for keys and framing.
pub const TXN_BYTES_MAX: usize = 1 << 20;
/// A value larger than this does not belong into the store; see the design on chunks and buckets.
pub const VALUE_BYTES_MAX: usize = 256 << 10;

/// Names a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The region.
    pub keyspace: Keyspace,
    /// The name inside it; not empty.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(keyspace: Keyspace, name: impl Into<String>) -> Self {
        Self { keyspace, name: name.into() }
    }
}

/// A stored value with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without any prefix.
    pub name: String,
    /// The value; empty is not absent.
    pub value: Bytes,
    /// When the key came to be.
    pub create_revision: Revision,
    /// When it was last written.
    pub mod_revision: Revision,
}

/// Some entries, all of one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// In the order of their names (bytewise).
    pub entries: Vec<Entry>,
    /// The revision that was read.
    pub revision: Revision,
    /// Pass as `after` to go on; `None`: that was all.
    pub next: Option<String>,
}

/// Which entries to scan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Names that begin with this, bytewise. To select by a path component, end it with '/': then `job-1/` never
    /// selects `job-10/…`.
    pub prefix: String,
    /// Only names greater than this one.
    pub after: Option<String>,
    /// At most so many; 0: a page of the store's own choosing.
    pub limit: usize,
    /// As of this revision; `None`: the newest (linearizable).
    pub at: Option<Revision>,
}

/// A condition of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guard {
    /// The key does not exist.
    Absent(Key),
    /// The key exists.
    Present(Key),
    /// The key was last written by exactly this revision.
    AtRevision(Key, Revision),
    /// The session is alive.
    SessionAlive(SessionId),
    /// The session is gone.
    SessionGone(SessionId),
    /// Nothing below this prefix was written after the revision (deletions are not seen: delete by marking where it
    /// matters).
    NothingNewer {
        /// The region.
        keyspace: Keyspace,
        /// Names that begin with this.
        prefix: String,
        /// The revision.
        than: Revision,
    },
}

/// A write of a transaction. A transaction may not write a key twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Writes a value.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// The key goes when this session does.
        session: Option<SessionId>,
    },
    /// Deletes a key; no error if it is absent.
    Delete(Key),
    /// Deletes every name in `from..to` of a keyspace.
    DeleteRange {
        /// The region.
        keyspace: Keyspace,
        /// The first name.
        from: String,
        /// The first name that stays.
        to: String,
    },
}

/// All or nothing: if every guard holds, every op is done, at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions.
    pub guards: Vec<Guard>,
    /// Writes.
    pub ops: Vec<Op>,
    /// Keys to read, in the same instant, if a guard fails: from them the caller learns which one and why.
    pub read_on_failure: Vec<Key>,
}

/// What became of a transaction whose outcome is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOutcome {
    /// Done, at this revision (the mod revision of everything it put).
    Committed(Revision),
    /// A guard did not hold; nothing was written.
    Refused {
        /// The store's revision when it was refused.
        revision: Revision,
        /// What `read_on_failure` asked for, in its order.
        read: Vec<Option<Entry>>,
    },
}

/// The name of a session: a leased key. Fresh at each start of a process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub String);

/// A change, as a watch reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Written.
    Put(Entry),
    /// Deleted (or its session ended).
    Deleted {
        /// Which.
        name: String,
        /// When.
        revision: Revision,
    },
}

/// What comes out of a watch, in the order of revisions. Several changes of one revision come in one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchBatch {
    /// The revision of these changes.
    pub revision: Revision,
    /// In the order the store made them.
    pub changes: Vec<Change>,
}

/// A watch. It resumes by itself after a lost connection. An error ends it: on `Compacted`, list again and watch from
/// there.
pub type WatchStream = BoxStream<'static, Result<WatchBatch, Error>>;

/// A leased presence in the store.
#[async_trait]
pub trait Session: Send + Sync + std::fmt::Debug + 'static {
    /// Its name, for guards and for [`Op::Put::session`].
    fn id(&self) -> &SessionId;
    /// How long it certainly still lives, seen from here: TTL less a margin, counted from the *sending* of the last
    /// renewal that was answered, by a clock that runs during suspend. Zero: count it as lost, launch nothing.
    fn slack(&self) -> Duration;
    /// Waits until it is lost.
    async fn lost(&self);
    /// Stops or resumes its renewal. A scheduler whose commit loop is stuck must let its session die.
    fn renew(&self, on: bool);
    /// Ends it now: its keys go at once, instead of after the TTL.
    async fn close(&self);
}

/// A lock held. Released on drop. Protects nothing by itself: use `guard` in every write that it is meant to protect.
pub trait Lock: Send + Sync + std::fmt::Debug + 'static {
    /// Holds as long as the lock is held.
    fn guard(&self) -> Guard;
}

/// A store.
#[async_trait]
pub trait StateBackend: Send + Sync + std::fmt::Debug + 'static {
    /// The entry, or none. Linearizable.
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error>;
    /// Several keys at one revision.
    async fn get_many(&self, keys: &[Key]) -> Result<(Revision, Vec<Option<Entry>>), Error>;
    /// All entries below a prefix, of one revision. For prefixes known to hold little; otherwise `scan`.
    async fn get_from_prefix(&self, keyspace: Keyspace, prefix: &str) -> Result<Page, Error>;
    /// One page. Pass its `revision` as `at` to see the following ones at the same revision.
    async fn scan(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error>;
    /// One page of names; values come empty.
    async fn scan_keys(&self, keyspace: Keyspace, scan: Scan) -> Result<Page, Error>;
    /// Writes without a guard.
    async fn put(&self, key: Key, value: Bytes) -> Result<Revision, Error> {
        moving::put(self, key, value).await
    }
    /// The guarded transaction. See [`Error::Unknown`] for how to treat an unknown outcome.
    async fn put_txn(&self, txn: Txn) -> Result<TxnOutcome, Error>;
    /// Moves a value to another keyspace under the same or another name, with guards; the source must be at
    /// `from_revision` and the target absent.
    async fn mv(
        &self,
        from: Key,
        from_revision: Revision,
        to: Key,
        value: Bytes,
        guards: Vec<Guard>,
    ) -> Result<TxnOutcome, Error> {
        self.put_txn(moving::transaction(from, from_revision, to, value, guards)).await
    }
    /// Deletes a key, true if it existed.
    async fn delete(&self, key: &Key) -> Result<bool, Error> {
        moving::delete(self, key).await
    }
    /// Changes below a prefix from a revision (inclusive) on, in order.
    async fn watch(&self, keyspace: Keyspace, prefix: &str, from: Revision) -> Result<WatchStream, Error>;
    /// Opens a session and writes its key `Schedulers/<id>` with `value`.
    async fn open_session(&self, id: SessionId, ttl: Duration, value: Bytes) -> Result<Arc<dyn Session>, Error>;
    /// Waits for the lock `Locks/<name>`. Dropping the future gives the place in the queue up.
    async fn lock(&self, name: &str, session: &Arc<dyn Session>) -> Result<Box<dyn Lock>, Error>;
    /// The newest revision.
    async fn revision(&self) -> Result<Revision, Error>;
    /// Forgets history before `revision`. One already compacted is no error.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;
    /// How the store itself is. A member that cannot be asked is named as such; an error means that none could be.
    async fn status(&self) -> Result<StoreStatus, Error>;
    /// Lets a member give back the space that forgotten history left behind. It answers nothing else meanwhile.
    async fn defragment(&self, _member: u64) -> Result<(), Error> {
        Ok(())
    }
    /// Ends a member's [`Alarm::NoSpace`](crate::Alarm::NoSpace). If there is no room the store raises it again.
    async fn disarm_no_space(&self, _member: u64) -> Result<(), Error> {
        Ok(())
    }
}
