//! A job, followed until it is finished, over any number of schedulers.

use muster_graph::ids::JobId;
use muster_proto::v1;

use crate::call::Repeat;
use crate::client::{Client, jobs};
use crate::error::Error;
use crate::resumed::Resumed;

/// Whether the job will not change any more, unless somebody retries it.
#[must_use]
pub fn is_finished(view: &v1::JobView) -> bool {
    matches!(view.state(), v1::JobState::Successful | v1::JobState::Failed | v1::JobState::Cancelled)
}

/// Views of a job as it changes. Made by [`Client::watch_job`].
#[derive(Debug)]
pub struct Watch {
    job: JobId,
    views: Resumed<v1::JobView>,
}

impl Watch {
    pub(crate) fn new(client: Client, job: JobId) -> Self {
        Self { job, views: Resumed::new(client) }
    }

    /// The next view that differs from the last one, `None` after that of a finished job.
    ///
    /// Cancel-safe: dropping the future loses no view.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Unavailable`] after [`Options::stream_timeout`](crate::Options::stream_timeout)
    /// without a word from any scheduler; and what any call can meet.
    pub async fn next(&mut self) -> Result<Option<v1::JobView>, Error> {
        if self.views.last().is_some_and(is_finished) {
            return Ok(None);
        }
        loop {
            if let Some(view) = self.views.next().await? {
                return Ok(Some(view));
            }
            let patience = self.views.patience();
            let request = v1::WatchJobRequest { job_id: self.job.to_string() };
            let client = self.views.client().clone();
            let opened = client
                .call("read", Repeat::Read, patience, async |channel| {
                    Ok(jobs(channel).watch_job(request.clone()).await?.into_inner())
                })
                .await?;
            self.views.opened(opened);
        }
    }
}
