//! `muster cancel`

use clap::Args;
use muster_client::JobId;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views::{Cancellation, job_state};

/// Cancel jobs: after the answer no task is started any more but those of `always` stages
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<JobId>,
    /// Why; shown with the job
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
}

impl Cancel {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let mut cancelled = Vec::new();
        for job in self.jobs {
            let state = client.cancel_job(job, &self.reason).await?;
            cancelled.push(Cancellation { id: job.to_string(), state: job_state(state) });
        }
        context.output.list(&cancelled)?;
        Ok(Exit::Success)
    }
}
