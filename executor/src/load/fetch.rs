//! Fetches one output from the executor that has it, and verifies it.
//!
//! Invariant: where it goes, it is there whole or not at all; two fetches of the same never write into one directory.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use muster_proto::v1;
use muster_proto::v1::data_client::DataClient;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::Backoff;
use super::receive::{NotReceived, Receiver};
use crate::blocking;
use crate::keys::AttemptKey;
use crate::output::manifest::Manifest;
use crate::uplink::channels::Channels;

/// Fetches of the whole executor at once.
const PARALLEL: usize = 32;
/// Tries to reach an executor before its output counts as unreadable: with the pauses between, about five seconds.
const TRIES_MAX: usize = 6;
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A stream on which nothing comes for so long is dead.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Chunks that are written together, if so many are there.
const CHUNKS_AT_ONCE: usize = 64;

/// What is to be fetched, and from where.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) address: String,
    pub(crate) attempt: AttemptKey,
    /// Only the entry of this name.
    pub(crate) part: Option<u32>,
    /// What all of it is known to be.
    pub(crate) expected: v1::Output,
}

/// Why it was not fetched.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is not there, or not what it should be.
    Gone(String),
    /// Nobody answers, or not to the end.
    OutOfReach(String),
    /// It cannot be written here.
    Disk(String),
}

/// Fetches for the whole executor.
pub(crate) struct Fetcher {
    channels: Channels,
    slots: Semaphore,
    /// Names directories apart that are not yet whole.
    partial: AtomicU64,
}

impl Fetcher {
    pub(crate) fn new(channels: Channels) -> Self {
        Self { channels, slots: Semaphore::new(PARALLEL), partial: AtomicU64::new(0) }
    }

    /// Brings it to a directory that is not there yet, and says what came. Cancel-safe: what was brought half is never
    /// taken for whole.
    pub(crate) async fn fetch(&self, source: &Source, to: &Path) -> Result<Manifest, Failure> {
        let _slot = self.slots.acquire().await.expect("the semaphore is never closed");
        let mut backoff = Backoff::between(PAUSE_MIN, PAUSE_MAX);
        let mut last = Failure::OutOfReach("not tried".to_owned());
        for tries in 0..TRIES_MAX {
            if tries > 0 {
                backoff.pause().await;
            }
            match self.fetch_once(source, to).await {
                Err(Failure::OutOfReach(why)) => last = Failure::OutOfReach(why),
                other => return other,
            }
        }
        Err(last)
    }

    /// The service that has outputs and logs at an address.
    pub(crate) fn data_at(&self, address: &str) -> Result<DataClient<Channel>, Failure> {
        let channel = self.channels.get(address);
        channel.map(DataClient::new).ok_or_else(|| Failure::OutOfReach(format!("'{address}' is not an address")))
    }

    async fn fetch_once(&self, source: &Source, to: &Path) -> Result<Manifest, Failure> {
        let address = &source.address;
        let out_of_reach = |why: &str| Failure::OutOfReach(format!("{address} cannot be reached: {why}"));
        let request = v1::FetchOutputRequest { attempt: Some(source.attempt.to_wire()), part: source.part };
        let answer = timeout(SILENCE_MAX, self.data_at(address)?.fetch_output(request)).await;
        let stream = match answer {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(judge(address, &status)),
            Err(_) => return Err(out_of_reach("no answer")),
        };

        let partial = to.with_extension(format!("{}.partial", self.partial.fetch_add(1, Ordering::Relaxed)));
        let mut receiver = on_disk(address, {
            let partial = partial.clone();
            move || Receiver::empty(partial)
        })
        .await?;
        let mut stream = stream.ready_chunks(CHUNKS_AT_ONCE);
        loop {
            let Ok(chunks) = timeout(SILENCE_MAX, stream.next()).await else {
                return Err(out_of_reach("nothing came for a long time"));
            };
            let Some(chunks) = chunks else { break };
            let chunks: Vec<v1::OutputChunk> =
                chunks.into_iter().collect::<Result<_, _>>().map_err(|status| judge(address, &status))?;
            receiver = on_disk(address, move || {
                chunks.into_iter().try_for_each(|chunk| receiver.take(chunk)).map(|()| receiver)
            })
            .await?;
        }
        let (to, whole) = (to.to_owned(), source.part.is_none().then_some(source.expected.checksum));
        on_disk(address, move || {
            let manifest = receiver.finish()?;
            let moved = if whole.is_some_and(|checksum| checksum != manifest.summary().checksum) {
                Err(NotReceived::Corrupt("it is not the output that the scheduler knows of".to_owned()))
            } else {
                std::fs::rename(&partial, to).map_err(|source| NotReceived::Disk { path: partial.clone(), source })
            };
            if moved.is_err() {
                let _ = std::fs::remove_dir_all(&partial);
            }
            moved.map(|()| manifest)
        })
        .await
    }
}

async fn on_disk<T: Send + 'static>(
    address: &str,
    work: impl FnOnce() -> Result<T, NotReceived> + Send + 'static,
) -> Result<T, Failure> {
    let done = blocking::run(work).await.map_err(|stopped| Failure::Disk(stopped.to_string()))?;
    done.map_err(|problem| match problem {
        NotReceived::Disk { .. } => Failure::Disk(problem.to_string()),
        NotReceived::Corrupt(what) => Failure::Gone(format!("what {address} sent is corrupt: {what}")),
        NotReceived::BrokenOff => Failure::OutOfReach(format!("{address} cannot be reached: {problem}")),
    })
}

/// What an executor's refusal means.
pub(crate) fn judge(address: &str, status: &tonic::Status) -> Failure {
    match status.code() {
        tonic::Code::NotFound | tonic::Code::DataLoss | tonic::Code::InvalidArgument => {
            Failure::Gone(format!("{address} says: {}", status.message()))
        }
        _ => Failure::OutOfReach(format!("{address} cannot be reached: {}", status.message())),
    }
}
