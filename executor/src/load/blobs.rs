//! Immutable blobs by content: a stage's work, a bunch of its items.
//!
//! Invariants: what is used was hashed here and bears its digest, also when it comes from the disk; each blob is asked
//! for once however many attempts wait for it (a waiter that is cancelled leaves the question to the next); a blob that
//! cannot be had now is asked for again for ever, and one that is missing or corrupt is an error of just those attempts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::blocking;

use super::{ASK_WITHIN, Advisors, Backoff, is_passing};

/// Blobs kept decoded in memory; above it the unused ones are dropped and come from the disk.
const CACHED_MAX: usize = 512;
/// BLAKE3 in hexadecimal.
const DIGEST_CHARS: usize = 64;

/// Why a blob will never be had.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("'{0}' is not a digest; submit the job again")]
    NotADigest(String),
    #[error("{what} {digest} is missing: {detail}; submit the job again")]
    Missing { what: &'static str, digest: String, detail: String },
    #[error("{what} {digest} is corrupt: its content has digest {actual}; submit the job again")]
    Corrupt { what: &'static str, digest: String, actual: String },
    #[error("{what} {digest} is corrupt: {detail}; submit the job again")]
    Undecodable { what: &'static str, digest: String, detail: String },
}

/// A kind of blob.
pub(crate) trait Blob: prost::Message + Default + Send + Sync + 'static {
    const WHAT: &'static str;
}

impl Blob for v1::StageWork {
    const WHAT: &'static str = "stage spec";
}

impl Blob for v1::Items {
    const WHAT: &'static str = "chunk of items";
}

type Cell<T> = Arc<OnceCell<Result<Arc<T>, Unusable>>>;

/// All blobs of one kind.
pub(crate) struct Blobs<T> {
    directory: PathBuf,
    /// Locked to find or add a cell.
    cells: Mutex<HashMap<String, Cell<T>>>,
}

impl<T: Blob> Blobs<T> {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, cells: Mutex::new(HashMap::new()) }
    }

    /// Cancel-safe. Ends only when the blob is here or can never be.
    pub(crate) async fn get(&self, job: JobId, digest: &str, advisors: &Advisors) -> Result<Arc<T>, Unusable> {
        if digest.len() != DIGEST_CHARS || !digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Unusable::NotADigest(digest.chars().take(DIGEST_CHARS).collect()));
        }
        let cell = {
            let mut cells = self.cells.lock().expect("no holder of this lock panics");
            if cells.len() >= CACHED_MAX && !cells.contains_key(digest) {
                cells.retain(|_, cell| Arc::strong_count(cell) > 1);
            }
            cells.entry(digest.to_owned()).or_default().clone()
        };
        let result = cell.get_or_init(|| self.load(job, digest, advisors)).await.clone();
        if result.is_err() {
            // Whoever comes later asks anew: the scheduler may have found it by then.
            self.cells.lock().expect("no holder of this lock panics").remove(digest);
        }
        result
    }

    async fn load(&self, job: JobId, digest: &str, advisors: &Advisors) -> Result<Arc<T>, Unusable> {
        let path = self.directory.join(digest);
        let what = T::WHAT;
        let file = path.clone();
        if let Ok(Ok(kept)) = blocking::run(move || std::fs::read(file)).await
            && blake3::hash(&kept).to_hex().as_str() == digest
            && let Ok(blob) = T::decode(kept.as_slice())
        {
            return Ok(Arc::new(blob));
        }
        let content = fetch(job, digest, advisors, what).await?;
        let actual = blake3::hash(&content).to_hex();
        if actual.as_str() != digest {
            return Err(Unusable::Corrupt { what, digest: digest.to_owned(), actual: actual.to_string() });
        }
        let blob = T::decode(content.clone()).map_err(|error| Unusable::Undecodable {
            what,
            digest: digest.to_owned(),
            detail: error.to_string(),
        })?;
        if let Err(error) = write(path.clone(), content).await {
            // It is in memory, and can be fetched again.
            tracing::warn!(path = %path.display(), %error, "cannot keep a blob");
        }
        Ok(Arc::new(blob))
    }
}

async fn write(path: PathBuf, content: Bytes) -> std::io::Result<()> {
    let next = path.with_extension(format!("{:016x}.next", rand::random::<u64>()));
    blocking::run(move || std::fs::write(&next, content).and_then(|()| std::fs::rename(&next, path)))
        .await
        .map_err(std::io::Error::other)?
}

async fn fetch(job: JobId, digest: &str, advisors: &Advisors, what: &'static str) -> Result<Bytes, Unusable> {
    let mut backoff = Backoff::new();
    for tries in 0.. {
        if let Some(mut scheduler) = advisors.pick(tries) {
            let request = v1::GetStageSpecRequest { job_id: job.to_string(), digest: digest.to_owned() };
            match timeout(ASK_WITHIN, scheduler.get_stage_spec(request)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner().content.into()),
                Ok(Err(status)) if !is_passing(&status) => {
                    let (digest, detail) = (digest.to_owned(), status.message().to_owned());
                    return Err(match status.code() {
                        tonic::Code::DataLoss => Unusable::Undecodable { what, digest, detail },
                        _ => Unusable::Missing { what, digest, detail },
                    });
                }
                Ok(Err(status)) => tracing::debug!(%job, digest, %status, "the blob cannot be had now"),
                Err(_) => tracing::debug!(%job, digest, "the blob did not come in time"),
            }
        }
        backoff.pause().await;
    }
    unreachable!("the numbers do not end")
}
