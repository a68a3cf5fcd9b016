//! Results that no scheduler has committed yet.
//!
//! Invariants: a result is on disk before it is sent; it stays until a scheduler says `settled`; a number in the outbox
//! is never used twice, over all incarnations, so a late `settled` can only ever drop what it was meant for.
//!
//! Who sends, and where to, is decided in [`crate::uplink`]; here is only what is due.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use muster_graph::ids::JobId;
use muster_proto::v1;
use prost::Message as _;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::keyed_log::{Change, KeyedLog, NotWritten};
use crate::keys::AttemptKey;

/// A result that was sent and neither settled nor refused is sent again after this long.
pub(crate) const RESEND_AFTER: Duration = Duration::from_secs(1);
/// A start is told only if the attempt still runs after this long: short tasks tell their end alone.
pub(crate) const STARTED_AFTER: Duration = Duration::from_millis(20);
/// Results share a flush of the disk, of which there is one in so long at most: each costs as much as a short task. The next one starts
/// meanwhile.
const FLUSH_EVERY: Duration = Duration::from_millis(5);
/// Numbers below this one of an incarnation; above them is the incarnation.
const SEQUENCE_BITS: u32 = 40;
/// Form of the stored records.
const VERSION: u8 = 1;

/// A result that waits.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) key: AttemptKey,
    pub(crate) owner_address: Arc<str>,
    pub(crate) status: v1::AttemptStatus,
    /// When it is due next.
    due: Instant,
    /// How often it was sent in vain.
    pub(crate) tries: u32,
}

#[derive(Debug)]
struct Inside {
    next: u64,
    results: BTreeMap<u64, Pending>,
    started: HashMap<AttemptKey, Started>,
    /// Where a scheduler said that a job's owner is.
    owners: HashMap<JobId, Arc<str>>,
}

#[derive(Debug, Clone)]
struct Started {
    owner_address: Arc<str>,
    at_ms: u64,
    due: Instant,
}

/// Something to be sent now.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) sequence: u64,
    pub(crate) owner_address: Arc<str>,
    pub(crate) tries: u32,
    pub(crate) status: v1::AttemptStatus,
}

/// The outbox.
#[derive(Debug)]
pub(crate) struct Outbox {
    log: KeyedLog,
    /// Locked for small changes of the maps, never across a write.
    inside: Mutex<Inside>,
    /// Something may be due.
    pub(crate) changed: Notify,
}

fn first_of(incarnation: u64) -> u64 {
    (incarnation << SEQUENCE_BITS) + 1
}

impl Outbox {
    pub(crate) fn open(path: &Path, incarnation: u64, lock: Option<Arc<File>>) -> std::io::Result<Self> {
        let (log, kept) = KeyedLog::open(path, lock, FLUSH_EVERY)?;
        let mut results = BTreeMap::new();
        for (sequence, value) in kept {
            results.insert(sequence, decode(&value).map_err(std::io::Error::other)?);
        }
        let inside = Inside { next: first_of(incarnation), results, started: HashMap::new(), owners: HashMap::new() };
        Ok(Self { log, inside: Mutex::new(inside), changed: Notify::new() })
    }

    /// Numbers are those of this incarnation from now on.
    pub(crate) fn begin(&self, incarnation: u64) {
        let mut inside = self.inside();
        inside.next = inside.next.max(first_of(incarnation));
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().expect("no holder of this lock panics")
    }

    /// Keeps a result; it is on disk when this returns.
    pub(crate) async fn keep(
        &self,
        key: AttemptKey,
        owner_address: Arc<str>,
        finished: v1::AttemptFinished,
    ) -> Result<(), NotWritten> {
        let sequence = {
            let mut inside = self.inside();
            let sequence = inside.next;
            inside.next += 1;
            sequence
        };
        let what = Some(v1::attempt_status::What::Finished(finished));
        let status = v1::AttemptStatus { sequence, attempt: Some(key.to_wire()), what };
        let pending = Pending { key, owner_address, status, due: Instant::now(), tries: 0 };
        self.log.write(vec![Change::Put(sequence, encode(&pending))]).await?;
        {
            let mut inside = self.inside();
            inside.started.remove(&key);
            inside.results.insert(sequence, pending);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Notes a start, to be told unless the end overtakes it.
    pub(crate) fn started(&self, key: AttemptKey, owner_address: Arc<str>, at_ms: u64) {
        let due = Instant::now() + STARTED_AFTER;
        let mut inside = self.inside();
        let first = inside.started.is_empty();
        inside.started.insert(key, Started { owner_address, at_ms, due });
        drop(inside);
        if first {
            // With others waiting, whoever sends looks again before this one is due.
            self.changed.notify_one();
        }
    }

    /// Waits until everything is on disk.
    pub(crate) async fn flush(&self) -> Result<(), NotWritten> {
        self.log.flush().await
    }

    /// Takes what is due, at most `limit`, and makes it due again later unless it is settled by then.
    pub(crate) fn take_due(&self, limit: usize, wanted: impl Fn(&str) -> bool) -> Vec<Due> {
        let now = Instant::now();
        let mut inside = self.inside();
        let Inside { results, started, owners, .. } = &mut *inside;
        let mut due = Vec::new();
        let place = |job: JobId, own: &Arc<str>| owners.get(&job).unwrap_or(own).clone();
        for (sequence, pending) in results.iter_mut().filter(|(_, pending)| pending.due <= now) {
            if due.len() >= limit {
                break;
            }
            let owner_address = place(pending.key.job, &pending.owner_address);
            if !wanted(&owner_address) {
                continue;
            }
            pending.due = now + RESEND_AFTER;
            pending.tries += 1;
            due.push(Due {
                sequence: *sequence,
                owner_address,
                tries: pending.tries - 1,
                status: pending.status.clone(),
            });
        }
        started.retain(|key, start| {
            let owner_address = place(key.job, &start.owner_address);
            if start.due > now || due.len() >= limit || !wanted(&owner_address) {
                return true;
            }
            let what = Some(v1::attempt_status::What::Started(v1::AttemptStarted { started_at_ms: start.at_ms }));
            let status = v1::AttemptStatus { sequence: 0, attempt: Some(key.to_wire()), what };
            due.push(Due { sequence: 0, owner_address, tries: 0, status });
            false
        });
        due
    }

    /// These could not be sent: they are due again at `at`.
    pub(crate) fn not_sent(&self, sequences: &[u64], at: Instant) {
        let mut inside = self.inside();
        for sequence in sequences {
            if let Some(pending) = inside.results.get_mut(sequence) {
                pending.due = at;
            }
        }
    }

    /// When something is due next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let inside = self.inside();
        let results = inside.results.values().map(|pending| pending.due).min();
        let started = inside.started.values().map(|start| start.due).min();
        results.into_iter().chain(started).min()
    }

    /// Committed, or proven to be of no interest: dropped. Returns whose results these were.
    pub(crate) async fn settle(&self, sequences: &[u64]) -> Vec<AttemptKey> {
        let mut keys = Vec::new();
        let mut changes = Vec::new();
        {
            let mut inside = self.inside();
            for sequence in sequences {
                if let Some(pending) = inside.results.remove(sequence) {
                    keys.push(pending.key);
                    changes.push(Change::Delete(*sequence));
                }
            }
        }
        if !changes.is_empty() {
            // A settlement that is lost in a crash only means that the result is sent, and settled, again.
            self.log.write_lazily(changes).await;
        }
        keys
    }

    /// A scheduler says where a job's owner is.
    pub(crate) fn owner_is(&self, job: JobId, address: &str) {
        let mut inside = self.inside();
        inside.owners.insert(job, Arc::from(address));
        let now = Instant::now();
        for pending in inside.results.values_mut().filter(|pending| pending.key.job == job) {
            pending.due = pending.due.min(now);
        }
        drop(inside);
        self.changed.notify_one();
    }

    /// Drops all that is kept of a job, for it is over.
    pub(crate) async fn forget(&self, job: JobId) {
        let sequences: Vec<u64> = {
            let mut inside = self.inside();
            inside.owners.remove(&job);
            inside.started.retain(|key, _| key.job != job);
            inside.results.iter().filter(|(_, pending)| pending.key.job == job).map(|(sequence, _)| *sequence).collect()
        };
        self.settle(&sequences).await;
    }

    /// Whose results are kept.
    pub(crate) fn keys(&self) -> Vec<AttemptKey> {
        self.inside().results.values().map(|pending| pending.key).collect()
    }

    /// How many results wait.
    pub(crate) fn len(&self) -> usize {
        self.inside().results.len()
    }
}

fn encode(pending: &Pending) -> Bytes {
    let owner = pending.owner_address.as_bytes();
    let mut value = BytesMut::new();
    value.put_u8(VERSION);
    value.put_u16_le(u16::try_from(owner.len()).unwrap_or(0));
    if u16::try_from(owner.len()).is_ok() {
        value.put_slice(owner);
    }
    pending.status.encode(&mut value).expect("a growing buffer has room");
    value.freeze()
}

fn decode(value: &Bytes) -> Result<Pending, String> {
    let torn = || "a result that makes no sense; move outbox.log away to start without it".to_owned();
    let (&version, rest) = value.split_first().ok_or_else(torn)?;
    if version != VERSION {
        return Err(format!("results of version {version} in the outbox; use the Muster that wrote them"));
    }
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(torn)?;
    let (owner, status) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or_else(torn)?;
    let status = v1::AttemptStatus::decode(status).map_err(|_| torn())?;
    let attempt = status.attempt.as_ref().ok_or_else(torn)?;
    let key = AttemptKey::from_wire(attempt, None).map_err(|_| torn())?;
    let owner_address = Arc::from(std::str::from_utf8(owner).map_err(|_| torn())?);
    Ok(Pending { key, owner_address, status, due: Instant::now(), tries: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> AttemptKey {
        AttemptKey { job: JobId(1), stage: 0, index, attempt: 1 }
    }

    #[tokio::test]
    async fn results_survive_a_restart_until_they_are_settled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("outbox.log");
        let first = {
            let outbox = Outbox::open(&path, 1, None).unwrap();
            for index in 0..3 {
                outbox.keep(key(index), "owner:1".into(), v1::AttemptFinished::default()).await.unwrap();
            }
            let due = outbox.take_due(10, |_| true);
            assert_eq!(due.len(), 3);
            assert!(outbox.take_due(10, |_| true).is_empty(), "what is under way is not due");
            assert_eq!(outbox.settle(&[due[1].sequence, 999]).await, [key(1)]);
            // A later durable write carries the lazy settlement along.
            outbox.keep(key(3), "owner:1".into(), v1::AttemptFinished::default()).await.unwrap();
            due[0].sequence
        };
        let outbox = Outbox::open(&path, 2, None).unwrap();
        let due = outbox.take_due(10, |_| true);
        assert_eq!(due.iter().map(|d| d.status.attempt.as_ref().unwrap().index).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!(due[0].sequence, first, "a result keeps its number");
        outbox.keep(key(4), "owner:1".into(), v1::AttemptFinished::default()).await.unwrap();
        assert!(outbox.take_due(1, |_| true)[0].sequence > due[2].sequence, "numbers rise over incarnations");
    }

    #[tokio::test]
    async fn a_start_is_told_unless_its_end_overtakes_it() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::open(&dir.path().join("outbox.log"), 1, None).unwrap();
        outbox.started(key(0), "owner:1".into(), 5);
        outbox.started(key(1), "owner:1".into(), 6);
        assert!(outbox.take_due(10, |_| true).is_empty());
        {
            // The end of one is known before its start was told.
            outbox.keep(key(0), "owner:1".into(), v1::AttemptFinished::default()).await.unwrap();
        }
        // The start is due at its own time; the result was at once, and is not taken yet.
        tokio::time::sleep_until(Instant::now() + STARTED_AFTER).await;
        let due = outbox.take_due(10, |_| true);
        assert_eq!(due.len(), 2);
        assert!(due[0].sequence > 0 && due[1].sequence == 0);
        assert_eq!(due[1].status.attempt.as_ref().unwrap().index, 1);
    }
}
