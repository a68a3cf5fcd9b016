//! `muster jobs`

use clap::{Args, ValueEnum};
use muster_client::v1::{JobState, ListJobsRequest};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views;

/// The most jobs that a scheduler puts into one answer.
pub(super) const JOBS_PER_PAGE: u32 = 1000;

/// List jobs, newest first
#[derive(Debug, Args)]
pub(crate) struct Jobs {
    /// Only jobs in these states
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STATE,…")]
    state: Vec<State>,
    /// Only jobs of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only jobs in this group, by its path or id:ID, of the namespace [default namespace: default]
    #[arg(long, value_name = "PATH")]
    group: Option<String>,
    /// Also those in groups in it
    #[arg(short, long, requires = "group")]
    recursive: bool,
    /// At most so many
    #[arg(short, long, default_value_t = 100, value_name = "NUMBER")]
    limit: u32,
}

/// A job's state, as one writes it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Queued,
    Running,
    Successful,
    Failed,
    Cancelled,
}

impl From<State> for JobState {
    fn from(state: State) -> Self {
        match state {
            State::Queued => Self::Queued,
            State::Running => Self::Running,
            State::Successful => Self::Successful,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

impl Jobs {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let mut jobs = Vec::new();
        let mut page_token = String::new();
        let more = loop {
            let room = self.limit - u32::try_from(jobs.len()).expect("no more than the limit, which is one");
            let request = ListJobsRequest {
                namespace: self.namespace.clone().unwrap_or_default(),
                states: self.state.iter().map(|&state| JobState::from(state).into()).collect(),
                limit: room.clamp(1, JOBS_PER_PAGE),
                page_token,
                group: self.group.clone(),
                recursive: self.recursive,
            };
            let page = client.list_jobs(request).await.map_err(|error| match self.group {
                Some(_) => Failure::about_group(error),
                None => error.into(),
            })?;
            jobs.extend(page.jobs.into_iter().take(room as usize).map(views::Job::from));
            if page.next_page_token.is_empty() {
                break false;
            }
            if jobs.len() >= self.limit as usize {
                break true;
            }
            page_token = page.next_page_token;
        };
        context.output.list(&jobs)?;
        if more && context.output.is_for_people() {
            context.console.note(&format!("There are more than {} jobs: raise --limit to see them.", self.limit));
        }
        Ok(Exit::Success)
    }
}
