//! `muster cancel`

use clap::Args;
use muster_client::JobId;

use super::groups::namespace_text;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::answers::{Cancellation, GroupCancellation};
use crate::output::views::job_state;

/// Cancel jobs, or a group: after the answer no task is started any more but those of `always` stages
///
/// A group is cancelled as a whole, with all groups in it, however many jobs there are; nothing new gets into it from then on.
#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The jobs
    #[arg(required_unless_present = "group", conflicts_with_all = ["group", "namespace"], value_name = "ID")]
    jobs: Vec<JobId>,
    /// Instead of jobs: the group, by its path or id:ID
    #[arg(long, value_name = "PATH")]
    group: Option<String>,
    /// Where the group is [default: default]
    #[arg(short, long, requires = "group")]
    namespace: Option<String>,
    /// Why; shown with the job or group
    #[arg(long, default_value = "", value_name = "TEXT")]
    reason: String,
}

impl Cancel {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        if let Some(group) = self.group {
            let namespace = self.namespace.unwrap_or_default();
            client.cancel_group(&namespace, &group, &self.reason).await.map_err(Failure::about_group)?;
            let namespace = namespace_text(namespace);
            context.output.list(&[GroupCancellation { namespace, group, state: "cancelled" }])?;
            return Ok(Exit::Success);
        }
        let mut cancelled = Vec::new();
        for job in self.jobs {
            let state = client.cancel_job(job, &self.reason).await?;
            cancelled.push(Cancellation { id: job.to_string(), state: job_state(state) });
        }
        context.output.list(&cancelled)?;
        Ok(Exit::Success)
    }
}
