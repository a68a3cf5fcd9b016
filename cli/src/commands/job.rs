//! `muster job`

use clap::{Args, ValueEnum};
use muster_client::TaskFilter;
use muster_client::v1::{ListAttemptsRequest, TaskState};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Folding;
use crate::output::views::{JobAtLength, Task};
use crate::reference::Reference;

/// Show a job: its stages, failed attempts and, if asked for, tasks
#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The job; with a stage or a task, the list of just those tasks
    #[arg(value_name = "ID[/STAGE[/TASK]]")]
    reference: Reference,
    /// Show the tasks too
    #[arg(short, long)]
    tasks: bool,
    /// List the attempts that failed instead; of a single task, all of its attempts
    #[arg(short, long, conflicts_with_all = ["tasks", "state"])]
    attempts: bool,
    /// Only tasks in these states; implies --tasks
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STATE,…")]
    state: Vec<State>,
    /// Unfold nested jobs to this depth; those that failed are unfolded anyway
    #[arg(long, default_value_t = 0, value_name = "NUMBER")]
    depth: usize,
    /// Of the stages, show only those in this nested job
    #[arg(long, value_name = "STAGE/…")]
    path: Option<String>,
    /// At most so many tasks
    #[arg(short, long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
}

/// A task's state, as one writes it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Pending,
    Assigned,
    Running,
    Successful,
    Failed,
    Cancelled,
}

impl From<State> for TaskState {
    fn from(state: State) -> Self {
        match state {
            State::Pending => Self::Pending,
            State::Assigned => Self::Assigned,
            State::Running => Self::Running,
            State::Successful => Self::Successful,
            State::Failed => Self::Failed,
            State::Cancelled => Self::Cancelled,
        }
    }
}

impl Job {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let Reference { job, stage, index } = self.reference;
        if self.attempts {
            let request = ListAttemptsRequest {
                job_id: job.to_string(),
                stage: stage.unwrap_or_default(),
                index,
                limit: u32::try_from(self.limit).unwrap_or(u32::MAX),
            };
            let found = client.list_attempts(request).await?;
            let id = job.to_string();
            let attempts: Vec<Task> = found.attempts.into_iter().map(|attempt| Task::new(&id, attempt)).collect();
            context.output.list(&attempts)?;
            if found.more && context.output.is_for_people() {
                context.console.note(&format!("There are more than {} attempts: raise --limit.", self.limit));
            }
            return Ok(Exit::Success);
        }
        let only_tasks = stage.is_some();
        let filter = TaskFilter { stage, index, states: self.state.iter().map(|&state| state.into()).collect() };
        let with_tasks = only_tasks || self.tasks || !filter.states.is_empty();
        let (tasks, more_tasks) = match (with_tasks, &filter) {
            (false, _) => (None, false),
            (true, filter) => {
                let (mut tasks, more) = client.tasks(job, filter, self.limit).await?;
                // One task is asked for by name: that it is not there is an error, not an empty list.
                if let (TaskFilter { stage: Some(stage), index: Some(index), states }, []) = (filter, tasks.as_slice())
                    && states.is_empty()
                {
                    tasks.push(client.task(job, stage, *index).await?);
                }
                (Some(tasks), more)
            }
        };
        let id = job.to_string();
        let tasks: Option<Vec<Task>> = tasks.map(|tasks| tasks.into_iter().map(|task| Task::new(&id, task)).collect());
        if only_tasks {
            context.output.list(tasks.as_deref().unwrap_or_default())?;
            if more_tasks && context.output.is_for_people() {
                context.console.note(&format!("There are more than {} tasks: raise --limit to see them.", self.limit));
            }
        } else {
            let view = client.get_job(job).await?;
            let path = self.path.map(|path| path.trim_end_matches('/').to_owned());
            if let Some(path) = path.as_ref().filter(|path| !view.stages.iter().any(|stage| stage.name == **path)) {
                return Err(Failure::usage(format!("--path: the job has no stage '{path}'"))
                    .help(format!("`muster job {job} --depth 16` lists all stages")));
            }
            let folding = Folding { depth: self.depth, path };
            context.output_now().one(&JobAtLength { tasks, more_tasks, folding, ..view.into() })?;
        }
        Ok(Exit::Success)
    }
}
