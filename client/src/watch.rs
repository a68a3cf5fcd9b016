//! A job, followed until it is finished, over any number of schedulers.

use muster_graph::ids::JobId;
use muster_proto::v1;
use tokio::time::Instant;
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::call::{Repeat, Verdict, judge};
use crate::client::{Client, jobs};
use crate::error::Error;

/// Whether the job will not change any more, unless somebody retries it.
#[must_use]
pub fn is_finished(view: &v1::JobView) -> bool {
    matches!(view.state(), v1::JobState::Successful | v1::JobState::Failed | v1::JobState::Cancelled)
}

/// Views of a job as it changes. Made by [`Client::watch_job`].
#[derive(Debug)]
pub struct Watch {
    client: Client,
    job: JobId,
    stream: Option<Streaming<v1::JobView>>,
    /// The last view told: a new subscription begins with the present, which may be what was told last.
    last: Option<v1::JobView>,
    backoff: Backoff,
    /// Since when nothing has come in for want of a stream; the patience for one counts from here.
    broken_since: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(client: Client, job: JobId) -> Self {
        let backoff = Backoff::new(client.options().backoff, client.options().backoff_max);
        Self { client, job, stream: None, last: None, backoff, broken_since: None }
    }

    /// The next view that differs from the last one, `None` after that of a finished job.
    ///
    /// Cancel-safe: dropping the future loses no view.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] after [`Options::stream_timeout`](crate::Options::stream_timeout)
    /// without a word from any scheduler; and what any call can meet.
    pub async fn next(&mut self) -> Result<Option<v1::JobView>, Error> {
        if self.last.as_ref().is_some_and(is_finished) {
            return Ok(None);
        }
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    let opened = self.open().await?;
                    self.stream.insert(opened)
                }
            };
            let broken = match stream.message().await {
                Ok(Some(view)) => {
                    self.broken_since = None;
                    self.backoff.reset();
                    if self.last.as_ref() == Some(&view) {
                        continue;
                    }
                    self.last = Some(view.clone());
                    return Ok(Some(view));
                }
                Ok(None) => "the scheduler ended the watch".to_owned(),
                Err(status) => match judge(&status) {
                    Verdict::Final(error) => return Err(error),
                    Verdict::NotSent(why) | Verdict::Lost(why) | Verdict::Refused { message: why, .. } => why,
                },
            };
            tracing::debug!(job = %self.job, why = broken, "a watch broke off; subscribing again");
            self.stream = None;
            let address = self.client.targets().current();
            self.client.targets().skip(&address);
            tokio::time::sleep(self.backoff.next()).await;
        }
    }

    async fn open(&mut self) -> Result<Streaming<v1::JobView>, Error> {
        let waited = self.broken_since.get_or_insert_with(Instant::now).elapsed();
        let patience = self.client.options().stream_timeout.saturating_sub(waited);
        let job = self.job;
        self.client
            .call("read", Repeat::Read, patience, async |channel| {
                Ok(jobs(channel).watch_job(v1::WatchJobRequest { job_id: job.to_string() }).await?.into_inner())
            })
            .await
    }
}
