//! A small durable map from numbers to bytes: an append-only file, written by one thread in groups.
//!
//! Invariants: a change that was acknowledged with `sync` survives a power cut; after a crash in the middle of a write
//! the file holds a prefix of what was written, and the torn rest is cut off when it is opened; a record of a newer
//! version is refused by name, never rewritten. The file is rewritten when most of it is history.
//!
//! Group commit: the thread takes everything that waits, writes it with one `write` and one `fdatasync`, then answers.
//! So a result costs a share of one disk flush, however many there are; and between two of these a pause may be wanted, in which more
//! of them gather.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use tokio::sync::{mpsc, oneshot};

use crate::faults;

/// First bytes of each file: kind and version.
const HEADER: &[u8; 8] = b"MUSTLOG1";
/// Length and checksum before each record.
const FRAME: usize = 8;
/// Kind and key at the head of each record.
const HEAD: usize = 9;
/// No record is near this size; a length above it is a torn write.
const RECORD_BYTES_MAX: usize = 8 << 20;
/// Below this size a file is never worth rewriting.
const REWRITE_BYTES_MIN: u64 = 4 << 20;
/// Changes that may wait for the disk; a full queue slows the callers.
const QUEUE_LEN: usize = 1024;

/// One change of the map.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Sets a key.
    Put(u64, Bytes),
    /// Removes a key.
    Delete(u64),
}

/// Why a change is not on disk.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot write {path}: {reason}")]
pub(crate) struct NotWritten {
    path: PathBuf,
    reason: String,
}

struct Order {
    changes: Vec<Change>,
    done: Option<oneshot::Sender<Result<(), NotWritten>>>,
}

/// The handle; clones share the file.
#[derive(Debug, Clone)]
pub(crate) struct KeyedLog {
    path: PathBuf,
    orders: mpsc::Sender<Order>,
    /// In a simulation there is no thread: each order is carried out where it is given.
    inline: Option<Arc<Mutex<Writer>>>,
}

impl KeyedLog {
    /// Opens or creates the file, and returns what it holds. `lock` is kept open until the last write is done, so that
    /// whoever gets it next finds a file that nobody writes.
    pub(crate) fn open(
        path: &Path,
        lock: Option<Arc<File>>,
        flush_every: Duration,
    ) -> std::io::Result<(Self, BTreeMap<u64, Bytes>)> {
        let mut live = BTreeMap::new();
        let content = match std::fs::read(path) {
            Ok(content) => Bytes::from(content),
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Bytes::new(),
            Err(other) => return Err(other),
        };
        let good = if content.len() < HEADER.len() { 0 } else { replay(&content, &mut live)? };
        if good < content.len() {
            tracing::warn!(path = %path.display(), bytes = content.len() - good, "cut off a torn write");
        }
        let mut file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.set_len(good as u64)?;
        file.seek(SeekFrom::End(0))?;
        if good == 0 {
            file.write_all(HEADER)?;
        }
        file.sync_all()?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        let (orders, receiver) = mpsc::channel(QUEUE_LEN);
        let length = (good as u64).max(HEADER.len() as u64);
        let writer = Writer {
            path: path.to_owned(),
            file,
            length,
            live: live.clone(),
            broken: None,
            flush_every,
            flushed: None,
            _lock: lock,
        };
        if faults::is_set("one-thread") {
            let inline = Some(Arc::new(Mutex::new(writer)));
            return Ok((Self { path: path.to_owned(), orders, inline }, live));
        }
        std::thread::Builder::new().name("muster-log".to_owned()).spawn(move || writer.run(receiver))?;
        Ok((Self { path: path.to_owned(), orders, inline: None }, live))
    }

    /// Writes the changes and waits until they are on disk. Several callers share one flush.
    pub(crate) async fn write(&self, changes: Vec<Change>) -> Result<(), NotWritten> {
        let (done, answer) = oneshot::channel();
        let gone = || NotWritten { path: self.path.clone(), reason: "the writer has ended".to_owned() };
        self.give(Order { changes, done: Some(done) }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Waits until everything before is written.
    pub(crate) async fn flush(&self) -> Result<(), NotWritten> {
        self.write(Vec::new()).await
    }

    /// Writes the changes some time; a crash may lose them.
    pub(crate) async fn write_lazily(&self, changes: Vec<Change>) {
        // An ended writer loses what a crash may lose anyway.
        let _ = self.give(Order { changes, done: None }).await;
    }

    async fn give(&self, order: Order) -> Result<(), mpsc::error::SendError<Order>> {
        let Some(writer) = &self.inline else { return self.orders.send(order).await };
        writer.lock().expect("no holder of this lock panics").carry_out(&mut vec![order]);
        Ok(())
    }
}

/// Reads whole records into the map; returns where the good part ends.
fn replay(content: &Bytes, live: &mut BTreeMap<u64, Bytes>) -> std::io::Result<usize> {
    if content[..HEADER.len()] != HEADER[..] {
        return Err(std::io::Error::other(
            "written by another version of Muster; start that version, or move the file away",
        ));
    }
    let mut at = HEADER.len();
    while content.len() - at >= FRAME + HEAD {
        let mut frame = &content[at..at + FRAME];
        let (length, checksum) = (frame.get_u32_le() as usize, frame.get_u32_le());
        let end = at + FRAME + length;
        if !(HEAD..=RECORD_BYTES_MAX).contains(&length) || end > content.len() {
            break;
        }
        let record = content.slice(at + FRAME..end);
        if crc32fast::hash(&record) != checksum {
            break;
        }
        let key = u64::from_le_bytes(record[1..HEAD].try_into().expect("eight bytes"));
        match record[0] {
            0 => drop(live.remove(&key)),
            1 => drop(live.insert(key, record.slice(HEAD..))),
            other => return Err(std::io::Error::other(format!("record of unknown kind {other}; use a newer Muster"))),
        }
        at = end;
    }
    Ok(at)
}

fn append(buffer: &mut Vec<u8>, kind: u8, key: u64, value: &[u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&key.to_le_bytes());
    hasher.update(value);
    let length = u32::try_from(HEAD + value.len()).expect("records are small");
    buffer.extend_from_slice(&length.to_le_bytes());
    buffer.extend_from_slice(&hasher.finalize().to_le_bytes());
    buffer.push(kind);
    buffer.extend_from_slice(&key.to_le_bytes());
    buffer.extend_from_slice(value);
}

#[derive(Debug)]
struct Writer {
    path: PathBuf,
    file: File,
    length: u64,
    live: BTreeMap<u64, Bytes>,
    /// Set when a flush failed: what is on disk is then unknown, and no later flush may claim success.
    broken: Option<String>,
    /// From the beginning of one flush to that of the next it takes at least so long.
    flush_every: Duration,
    flushed: Option<Instant>,
    _lock: Option<Arc<File>>,
}

impl Writer {
    fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut batch = Vec::new();
        while orders.blocking_recv_many(&mut batch, QUEUE_LEN) > 0 {
            let rest = self.flushed.map_or(Duration::ZERO, |at| self.flush_every.saturating_sub(at.elapsed()));
            if !rest.is_zero() {
                std::thread::sleep(rest);
                batch.extend(std::iter::from_fn(|| orders.try_recv().ok()).take(QUEUE_LEN));
            }
            self.carry_out(&mut batch);
        }
    }

    fn carry_out(&mut self, batch: &mut Vec<Order>) {
        let mut buffer = Vec::new();
        for order in &*batch {
            for change in &order.changes {
                match change {
                    Change::Put(key, value) => append(&mut buffer, 1, *key, value),
                    Change::Delete(key) => append(&mut buffer, 0, *key, &[]),
                }
            }
        }
        let result = self.commit(&buffer, batch.iter().any(|order| order.done.is_some()));
        if let Err(error) = &result {
            tracing::error!(path = %self.path.display(), error = %error.reason, "cannot write");
        }
        for order in batch.drain(..) {
            if result.is_ok() {
                for change in order.changes {
                    match change {
                        Change::Put(key, value) => drop(self.live.insert(key, value)),
                        Change::Delete(key) => drop(self.live.remove(&key)),
                    }
                }
            }
            if let Some(done) = order.done {
                // Nobody waits any more: fine, it is on disk all the same.
                let _ = done.send(result.clone());
            }
        }
        self.rewrite_if_worthwhile();
    }

    fn commit(&mut self, buffer: &[u8], sync: bool) -> Result<(), NotWritten> {
        let failed = |reason: String| NotWritten { path: self.path.clone(), reason };
        if let Some(reason) = &self.broken {
            return Err(failed(reason.clone()));
        }
        if let Err(error) = self.file.write_all(buffer) {
            // Half a record may be there: cut it off, so that the next one follows a whole one.
            let cut = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            if let Err(worse) = cut {
                self.broken = Some(worse.to_string());
            }
            return Err(failed(error.to_string()));
        }
        if sync {
            self.flushed = Some(Instant::now());
        }
        if sync && let Err(error) = self.file.sync_data() {
            let reason = format!("flush failed, restart the executor: {error}");
            self.broken = Some(reason.clone());
            return Err(failed(reason));
        }
        self.length += buffer.len() as u64;
        Ok(())
    }

    fn rewrite_if_worthwhile(&mut self) {
        let live: u64 = self.live.values().map(|value| (value.len() + FRAME + HEAD) as u64).sum();
        if self.broken.is_some() || self.length < REWRITE_BYTES_MIN || self.length < live * 4 {
            return;
        }
        match self.rewrite() {
            Ok(()) => tracing::debug!(path = %self.path.display(), bytes = self.length, "rewritten"),
            // The old file is whole and open; the next occasion tries again.
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot rewrite"),
        }
    }

    fn rewrite(&mut self) -> std::io::Result<()> {
        let next = self.path.with_extension("next");
        let mut buffer = HEADER.to_vec();
        for (key, value) in &self.live {
            append(&mut buffer, 1, *key, value);
        }
        let mut file = File::create(&next)?;
        file.write_all(&buffer)?;
        file.sync_all()?;
        std::fs::rename(&next, &self.path)?;
        self.file = file;
        self.length = buffer.len() as u64;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
        #[test]
        fn a_torn_tail_loses_only_the_tail(
            changes in proptest::collection::vec((0u64..8, proptest::option::of(0u8..255)), 1..40),
            torn in 0usize..60,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut after = vec![BTreeMap::<u64, Bytes>::new()];
            runtime().block_on(async {
                let (log, _) = KeyedLog::open(&path, None, Duration::ZERO).unwrap();
                for (key, value) in &changes {
                    let mut map = after.last().unwrap().clone();
                    let change = match value {
                        Some(value) => {
                            let bytes = Bytes::from(vec![*value; *value as usize]);
                            map.insert(*key, bytes.clone());
                            Change::Put(*key, bytes)
                        }
                        None => {
                            map.remove(key);
                            Change::Delete(*key)
                        }
                    };
                    log.write(vec![change]).await.unwrap();
                    after.push(map);
                }
            });
            let whole = std::fs::read(&path).unwrap();
            let (_, read) = KeyedLog::open(&path, None, Duration::ZERO).unwrap();
            prop_assert_eq!(&read, after.last().unwrap());
            let keep = whole.len().saturating_sub(torn).max(HEADER.len());
            std::fs::write(&path, &whole[..keep]).unwrap();
            let (_, read) = KeyedLog::open(&path, None, Duration::ZERO).unwrap();
            prop_assert!(after.contains(&read), "a prefix of the history");
        }
    }

    #[test]
    fn history_is_rewritten_and_nothing_live_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        runtime().block_on(async {
            let (log, _) = KeyedLog::open(&path, None, Duration::ZERO).unwrap();
            let big = Bytes::from(vec![7u8; 64 << 10]);
            for round in 0..100u64 {
                log.write(vec![Change::Put(round % 3, big.clone())]).await.unwrap();
            }
            log.write(vec![Change::Put(9, Bytes::from_static(b"last"))]).await.unwrap();
        });
        assert!(std::fs::metadata(&path).unwrap().len() < REWRITE_BYTES_MIN, "it was rewritten");
        let (_, read) = KeyedLog::open(&path, None, Duration::ZERO).unwrap();
        assert_eq!(read.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 9]);
    }

    #[test]
    fn a_file_of_another_version_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"MUSTLOG9 and more").unwrap();
        let error = KeyedLog::open(&path, None, Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("another version"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"MUSTLOG9 and more");
    }
}
