//! `muster wait`

use std::time::Duration;

use clap::Args;
use muster_client::JobId;

use super::exit_of;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views::Job;
use crate::quantity;

/// Wait until jobs are finished; the exit code is that of the first one, in the order given, that was not successful
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// The jobs
    #[arg(required = true, value_name = "ID")]
    jobs: Vec<JobId>,
    /// Give up after so long, with exit code 124; the jobs go on
    #[arg(long, value_parser = quantity::duration, value_name = "DURATION")]
    timeout: Option<Duration>,
}

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let waiting = async {
            let mut views = Vec::new();
            // One after the other takes as long as the longest one: those that finish meanwhile answer at once.
            for &job in &self.jobs {
                views.push(client.wait(job).await?);
            }
            Ok::<_, Failure>(views)
        };
        let views = match self.timeout {
            None => waiting.await?,
            Some(limit) => tokio::time::timeout(limit, waiting).await.map_err(|_| {
                Failure::new(Exit::TimedOut, format!("not all jobs were finished after {limit:?}; they go on"))
            })??,
        };
        let exit = views.iter().map(exit_of).find(|&exit| exit != Exit::Success).unwrap_or(Exit::Success);
        let jobs: Vec<Job> = views.into_iter().map(Job::from).collect();
        context.output_now().list(&jobs)?;
        Ok(exit)
    }
}
