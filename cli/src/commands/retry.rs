//! `muster retry`

use clap::Args;
use futures::{StreamExt as _, stream};
use muster_client::v1::{JobState, ListJobsRequest};
use muster_client::{Client, Error, JobId};

use super::jobs::JOBS_PER_PAGE;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::answers;
use crate::output::group::path_text;

/// Retries that are under way at the same time: each is a few commits, of which a cluster takes many at once.
const RETRIES_AT_ONCE: usize = 16;

/// Run what failed, and what never ran because of it, again, in place
///
/// What was successful stays as it is. The call is not repeated when its outcome is unknown (exit code 8): look at the
/// job first. With --group and --failed that is done with every job of a group; jobs that are active again meanwhile are passed over.
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The job
    #[arg(required_unless_present = "group", conflicts_with_all = ["group", "namespace"], value_name = "ID")]
    job: Option<JobId>,
    /// Instead of a job: the group, by its path or id:ID
    #[arg(long, requires = "failed", value_name = "PATH")]
    group: Option<String>,
    /// Of the group: every job that failed or was cancelled, those of groups in it too
    #[arg(long, requires = "group")]
    failed: bool,
    /// Where the group is [default: default]
    #[arg(short, long, requires = "group")]
    namespace: Option<String>,
}

impl Retry {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        match (self.job, self.group) {
            (Some(job), _) => {
                let tasks = client.retry_job(job).await?;
                context.output.one(&answers::Retry { id: job.to_string(), tasks })?;
                Ok(Exit::Success)
            }
            (None, Some(group)) if self.failed => {
                retry_group(context, &client, &self.namespace.unwrap_or_default(), &group).await
            }
            (None, _) => Err(Failure::usage("a job is missing").help("name one, or a group: --group PATH --failed")),
        }
    }
}

/// Retries all that is to be retried in a group.
async fn retry_group(context: &Context, client: &Client, namespace: &str, group: &str) -> Result<Exit, Failure> {
    let view = client.group(namespace, group).await.map_err(Failure::about_group)?;
    let name = path_text(&view.path);
    if view.is_cancelled {
        let by = path_text(&view.cancelled_by);
        let cancelled = if by == name { format!("group {name}") } else { format!("group {by} around {name}") };
        return Err(Failure::new(Exit::Conflict, format!("{cancelled} is cancelled: nothing in it runs again"))
            .help(format!("submit the jobs again into another group; `muster group {by}` says why it is cancelled")));
    }
    let jobs = unsuccessful(client, namespace, group).await?;
    let mut retries = stream::iter(jobs)
        .map(|job| {
            let client = client.clone();
            async move { (job, client.retry_job(job).await) }
        })
        .buffer_unordered(RETRIES_AT_ONCE);
    let mut answer =
        answers::GroupRetry { namespace: view.namespace, group: name, jobs: 0, tasks: 0, passed_over: 0, unknown: 0 };
    let mut passed_over = None;
    let mut unknown = None;
    while let Some((job, outcome)) = retries.next().await {
        match outcome {
            Ok(tasks) => {
                answer.jobs += 1;
                answer.tasks += u64::from(tasks);
            }
            Err(Error::Precondition(why) | Error::NotFound(why)) => {
                answer.passed_over += 1;
                passed_over.get_or_insert(why);
            }
            Err(Error::Unknown { why, .. }) => {
                answer.unknown += 1;
                unknown.get_or_insert((job, why));
            }
            Err(error) => {
                let failure = Failure::from(error);
                let message = format!("after {} jobs were retried: {}", answer.jobs, failure.message);
                return Err(Failure { message, ..failure });
            }
        }
    }
    if let Some(why) = passed_over {
        context
            .console
            .note(&format!("{} jobs were passed over, the first because of this: {why}", answer.passed_over));
    }
    context.output.one(&answer)?;
    match unknown {
        None => Ok(Exit::Success),
        Some((job, why)) => {
            let message =
                format!("it is not known whether {} jobs were retried, the first of them {job}: {why}", answer.unknown);
            Err(Failure::new(Exit::Unknown, message).help("do it again: jobs that are active by then are passed over"))
        }
    }
}

/// The jobs of a group, and of those in it, that failed or were cancelled. All are found before one is retried: one that fails again
/// meanwhile is not found a second time.
async fn unsuccessful(client: &Client, namespace: &str, group: &str) -> Result<Vec<JobId>, Failure> {
    let mut request = ListJobsRequest {
        namespace: namespace.to_owned(),
        states: vec![JobState::Failed.into(), JobState::Cancelled.into()],
        limit: JOBS_PER_PAGE,
        page_token: String::new(),
        group: Some(group.to_owned()),
        recursive: true,
    };
    let mut found = Vec::new();
    loop {
        let page = client.list_jobs(request.clone()).await.map_err(Failure::about_group)?;
        for view in page.jobs {
            let job: JobId = view.job_id.parse().map_err(|error| Failure::internal(format!("{error}")))?;
            found.push(job);
        }
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}
