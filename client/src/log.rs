//! What one attempt wrote, read from wherever it lies, over any number of schedulers.
//!
//! Invariant: every byte is given once and in order. A broken stream goes on at the first byte not yet received, and of
//! the very attempt it began with: by the time it breaks, a newer attempt may exist.

use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::time::Instant;
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::call::{Repeat, Verdict, judge};
use crate::client::{Client, jobs};
use crate::error::Error;
use crate::watch::is_finished;

/// How often a follower looks whether the task's first attempt has begun.
const FIRST_ATTEMPT_POLL: Duration = Duration::from_millis(300);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which log.
#[derive(Debug, Clone)]
pub struct LogRequest {
    /// The job.
    pub job: JobId,
    /// The stage's name.
    pub stage: String,
    /// The task.
    pub index: u32,
    /// `None`: the newest when the reading begins.
    pub attempt: Option<u32>,
    /// Standard output or standard error.
    pub stream: LogStream,
    /// Whether to go on until the attempt ends, and to wait for the first one to begin.
    pub follow: bool,
    /// The first byte wanted.
    pub offset: u64,
}

/// Chunks of a log. Made by [`Client::read_log`].
#[derive(Debug)]
pub struct Log {
    client: Client,
    request: LogRequest,
    stream: Option<Streaming<v1::LogChunk>>,
    /// The first byte not yet given.
    offset: u64,
    finished: bool,
    backoff: Backoff,
    /// Since when nothing has come in for want of a stream; the patience for one counts from here.
    broken_since: Option<Instant>,
}

impl Log {
    pub(crate) fn new(client: Client, request: LogRequest) -> Self {
        let backoff = Backoff::new(client.options().backoff, client.options().backoff_max);
        let offset = request.offset;
        Self { client, request, stream: None, offset, finished: false, backoff, broken_since: None }
    }

    /// The attempt that is read; `None` until [`Log::next`] has found out which one is the newest.
    #[must_use]
    pub fn attempt(&self) -> Option<u32> {
        self.request.attempt
    }

    /// The next bytes; `None` at the end.
    ///
    /// Cancel-safe: dropping the future loses no byte.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such task or attempt, or its log is gone; [`Error::Unavailable`] after
    /// [`Options::stream_timeout`](crate::Options::stream_timeout) without a word; and what any call can meet.
    pub async fn next(&mut self) -> Result<Option<v1::LogChunk>, Error> {
        while !self.finished {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let attempt = self.settle_attempt().await?;
                    let opened = self.open(attempt).await?;
                    self.stream.insert(opened)
                }
            };
            let broken = match stream.message().await {
                Ok(Some(chunk)) => {
                    self.broken_since = None;
                    self.backoff.reset();
                    match self.unseen(chunk) {
                        Some(chunk) => return Ok(Some(chunk)),
                        None => continue,
                    }
                }
                Ok(None) => {
                    self.finished = true;
                    break;
                }
                Err(status) => match judge(&status) {
                    Verdict::Final(error) => return Err(error),
                    Verdict::NotSent(why) | Verdict::Lost(why) | Verdict::Refused { message: why, .. } => why,
                },
            };
            tracing::debug!(job = %self.request.job, offset = self.offset, why = broken, "a log broke off; going on");
            self.stream = None;
            let address = self.client.targets().current();
            self.client.targets().skip(&address);
            tokio::time::sleep(self.backoff.next()).await;
        }
        Ok(None)
    }

    /// What of the chunk has not been given yet.
    fn unseen(&mut self, mut chunk: v1::LogChunk) -> Option<v1::LogChunk> {
        let known = self.offset.saturating_sub(chunk.offset);
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(chunk.data.len());
        chunk.data = chunk.data.slice(known..);
        chunk.offset += known as u64;
        if chunk.data.is_empty() && !chunk.truncated {
            return None;
        }
        self.offset = self.offset.max(chunk.offset + chunk.data.len() as u64);
        Some(chunk)
    }

    /// The number of the attempt to read, found once and then kept.
    async fn settle_attempt(&mut self) -> Result<u32, Error> {
        if let Some(attempt) = self.request.attempt {
            return Ok(attempt);
        }
        let LogRequest { job, stage, index, follow, .. } = self.request.clone();
        loop {
            let newest = self.client.task(job, &stage, index).await?.attempt;
            if newest > 0 {
                self.request.attempt = Some(newest);
                return Ok(newest);
            }
            let never =
                || Error::NotFound(format!("task {stage}/{index} of job {job} has not been started, so it has no log"));
            if !follow || is_finished(&self.client.get_job(job).await?) {
                return Err(never());
            }
            self.broken_since = None;
            tokio::time::sleep(FIRST_ATTEMPT_POLL).await;
        }
    }

    async fn open(&mut self, attempt: u32) -> Result<Streaming<v1::LogChunk>, Error> {
        let waited = self.broken_since.get_or_insert_with(Instant::now).elapsed();
        let patience = self.client.options().stream_timeout.saturating_sub(waited);
        let request = v1::ReadTaskLogRequest {
            job_id: self.request.job.to_string(),
            stage: self.request.stage.clone(),
            index: self.request.index,
            attempt,
            stream: match self.request.stream {
                LogStream::Stdout => v1::Stream::Stdout,
                LogStream::Stderr => v1::Stream::Stderr,
            }
            .into(),
            follow: self.request.follow,
            offset: self.offset,
        };
        self.client
            .call("read", Repeat::Read, patience, async |channel| {
                Ok(jobs(channel).read_log(request.clone()).await?.into_inner())
            })
            .await
    }
}
