//! `muster retry`

use clap::Args;
use muster_client::JobId;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views;

/// Run what failed, and what never ran because of it, again, in place
///
/// What was successful stays as it is. The call is not repeated when its outcome is unknown (exit code 8): look at the
/// job first.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The job
    #[arg(value_name = "ID")]
    job: JobId,
}

impl Retry {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let tasks = client.retry_job(self.job).await?;
        context.output.one(&views::Retry { id: self.job.to_string(), tasks })?;
        Ok(Exit::Success)
    }
}
