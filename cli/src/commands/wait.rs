//! `muster wait`

use std::time::Duration;

use clap::Args;
use muster_client::JobId;

use super::{exit_of, exit_of_group};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::group::Group;
use crate::output::views::Job;
use crate::quantity;

/// Wait until jobs, or all jobs of a group, are over; the exit code is that of the first one, in the order given, that was not successful
///
/// A group without any job is successful. Of one whose jobs are all over, the exit code is 1 if one of them failed, and 3 if none
/// failed and one, or the group, was cancelled.
#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// The jobs
    #[arg(required_unless_present = "group", conflicts_with_all = ["group", "namespace"], value_name = "ID")]
    jobs: Vec<JobId>,
    /// Instead of jobs: the group, by its path or id:ID, with all groups in it
    #[arg(long, value_name = "PATH")]
    group: Option<String>,
    /// Where the group is [default: default]
    #[arg(short, long, requires = "group")]
    namespace: Option<String>,
    /// Give up after so long, with exit code 124; the jobs go on
    #[arg(long, value_parser = quantity::duration, value_name = "DURATION")]
    timeout: Option<Duration>,
}

impl Wait {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        if let Some(group) = &self.group {
            let namespace = self.namespace.as_deref().unwrap_or_default();
            let waiting = async { client.wait_group(namespace, group).await.map_err(Failure::about_group) };
            let view = within(self.timeout, waiting).await?;
            let exit = exit_of_group(&view);
            context.output_now().list(&[Group::from(view)])?;
            return Ok(exit);
        }
        let waiting = async {
            let mut views = Vec::new();
            // One after the other takes as long as the longest one: those that finish meanwhile answer at once.
            for &job in &self.jobs {
                views.push(client.wait(job).await?);
            }
            Ok::<_, Failure>(views)
        };
        let views = within(self.timeout, waiting).await?;
        let exit = views.iter().map(exit_of).find(|&exit| exit != Exit::Success).unwrap_or(Exit::Success);
        let jobs: Vec<Job> = views.into_iter().map(Job::from).collect();
        context.output_now().list(&jobs)?;
        Ok(exit)
    }
}

async fn within<T>(limit: Option<Duration>, waiting: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    match limit {
        None => waiting.await,
        Some(limit) => tokio::time::timeout(limit, waiting).await.map_err(|_| {
            Failure::new(Exit::TimedOut, format!("not all jobs were finished after {limit:?}; they go on"))
        })?,
    }
}
