//! The highest fence heard of per job, on disk.
//!
//! Invariants: what [`Fences::raise`] has returned for survives a crash, so an owner that was superseded before it is
//! refused after it; a fence never goes down while the job can still be spoken of.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use muster_graph::ids::JobId;

use super::keyed_log::{Change, KeyedLog, NotWritten};
use crate::clock;
use crate::faults;
use crate::keys::Fence;

/// No message of a job's former owner is under way for longer than this.
const KEEP_MS: u64 = 7 * 24 * 3600 * 1000;

/// The fences of all jobs that were heard of lately.
#[derive(Debug)]
pub(crate) struct Fences {
    log: KeyedLog,
    /// Locked for look-ups and comparisons only, never across a write.
    known: Mutex<HashMap<JobId, Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    /// Heard of: lower ones are refused from now on.
    highest: Fence,
    /// On disk: may be answered for.
    durable: Fence,
}

impl Fences {
    pub(crate) async fn open(path: &Path, lock: Option<Arc<File>>) -> std::io::Result<Self> {
        let (log, kept) = KeyedLog::open(path, lock, Duration::ZERO)?;
        let mut known = HashMap::new();
        let mut old = Vec::new();
        let now = clock::wall_ms();
        for (job, value) in kept {
            let mut value = value;
            if value.len() < 24 {
                return Err(std::io::Error::other("a fence of unknown form; use a newer Muster"));
            }
            let fence = Fence { epoch: value.get_u64_le(), token: value.get_u64_le() };
            if value.get_u64_le() + KEEP_MS < now {
                old.push(Change::Delete(job));
            } else {
                known.insert(JobId(job), Known { highest: fence, durable: fence });
            }
        }
        if !old.is_empty() {
            log.write_lazily(old).await;
        }
        Ok(Self { log, known: Mutex::new(known) })
    }

    /// Hears of fences. Returns, per fence, whether it is not below the highest one; answers when all that count are
    /// on disk.
    pub(crate) async fn raise(&self, heard: &[(JobId, Fence)]) -> Result<Vec<bool>, NotWritten> {
        let mut changes = Vec::new();
        let verdicts = {
            let mut known = self.known.lock().expect("no holder of this lock panics");
            heard
                .iter()
                .map(|(job, fence)| {
                    let entry = known.entry(*job).or_insert(Known { highest: *fence, durable: Fence::default() });
                    if *fence < entry.highest && !faults::is_set("break-executor-refusal") {
                        return false;
                    }
                    entry.highest = entry.highest.max(*fence);
                    if entry.durable < *fence {
                        changes.push((*job, *fence));
                    }
                    true
                })
                .collect()
        };
        if !changes.is_empty() {
            let now = clock::wall_ms();
            self.log
                .write(changes.iter().map(|(job, fence)| Change::Put(job.0, encode(*fence, now))).collect())
                .await?;
            let mut known = self.known.lock().expect("no holder of this lock panics");
            for (job, fence) in changes {
                if let Some(entry) = known.get_mut(&job) {
                    entry.durable = entry.durable.max(fence);
                }
            }
        }
        Ok(verdicts)
    }

    /// Waits until everything is on disk.
    pub(crate) async fn flush(&self) -> Result<(), NotWritten> {
        self.log.flush().await
    }

    /// The highest one of a job.
    pub(crate) fn get(&self, job: JobId) -> Option<Fence> {
        self.known.lock().expect("no holder of this lock panics").get(&job).map(|known| known.highest)
    }

    /// The highest of all: a store that is behind it was restored from a backup.
    pub(crate) fn highest(&self) -> Fence {
        let known = self.known.lock().expect("no holder of this lock panics");
        known.values().map(|known| known.highest).max().unwrap_or_default()
    }
}

fn encode(fence: Fence, now: u64) -> Bytes {
    let mut value = BytesMut::with_capacity(24);
    value.put_u64_le(fence.epoch);
    value.put_u64_le(fence.token);
    value.put_u64_le(now);
    value.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lower_fence_is_refused_after_a_restart_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fences");
        let job = JobId(7);
        let fence = |epoch, token| Fence { epoch, token };
        {
            let fences = Fences::open(&path, None).await.unwrap();
            let heard = [(job, fence(1, 5)), (job, fence(1, 4)), (job, fence(2, 1)), (JobId(8), fence(1, 1))];
            assert_eq!(fences.raise(&heard).await.unwrap(), [true, false, true, true]);
        }
        let fences = Fences::open(&path, None).await.unwrap();
        assert_eq!(fences.get(job), Some(fence(2, 1)));
        assert_eq!(fences.highest(), fence(2, 1));
        assert_eq!(fences.raise(&[(job, fence(1, 9)), (job, fence(2, 1))]).await.unwrap(), [false, true]);
    }
}
