//! The calls.

use std::sync::Arc;
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_proto::v1::cluster_client::ClusterClient;
use muster_proto::v1::jobs_client::JobsClient;
use tonic::transport::Channel;

use crate::address::Address;
use crate::call::Repeat;
use crate::error::Error;
use crate::log::{Log, LogRequest};
use crate::options::Options;
use crate::targets::Targets;
use crate::watch::Watch;

/// A view of a job with 100,000 stages is some tens of megabytes; anything beyond this is a fault.
pub(crate) const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Asking for the others' addresses is a courtesy; the call that waits for it matters more.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(1);
/// The most tasks that a scheduler puts into one answer.
const TASKS_PER_PAGE: u32 = 10_000;

/// A handle to a cluster. Cloning it is cheap, and clones share connections and what is known about schedulers.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    targets: Targets,
    options: Options,
}

/// Which tasks of a job.
#[derive(Debug, Clone, Default)]
pub struct TaskFilter {
    /// `None`: of all stages.
    pub stage: Option<String>,
    /// `None`: all of the stage.
    pub index: Option<u32>,
    /// Empty: in any state.
    pub states: Vec<v1::TaskState>,
}

impl TaskFilter {
    /// Whether a task has the index that is asked for. A number behind a nested job's name is a stage in it.
    fn has(&self, task: &v1::TaskView) -> bool {
        let Some(index) = self.index else { return true };
        let is_inside = self.stage.as_ref().is_some_and(|stage| {
            let rest = task.stage.strip_prefix(&format!("{stage}/{index}"));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        task.index == index || is_inside
    }
}

impl Client {
    /// A client of the cluster that has schedulers at `addresses`. One of them must answer now; the others are found
    /// through it.
    ///
    /// # Errors
    /// [`Error::NoAddress`], [`Error::BadAddress`], or [`Error::Unavailable`] when none answers within
    /// [`Options::first_contact_timeout`].
    pub async fn connect<A: AsRef<str>>(
        addresses: impl IntoIterator<Item = A>,
        options: Options,
    ) -> Result<Self, Error> {
        let given = addresses.into_iter().map(|text| text.as_ref().parse()).collect::<Result<Vec<Address>, _>>()?;
        if given.is_empty() {
            return Err(Error::NoAddress);
        }
        let client = Self { inner: Arc::new(Inner { targets: Targets::new(given), options }) };
        let patience = client.options().first_contact_timeout;
        match client.list_schedulers_within(patience).await {
            // An answer all the same: somebody is there, and says what it cannot do when it is asked to.
            Ok(_) | Err(Error::Unsupported(_)) => Ok(client),
            Err(error) => Err(error),
        }
    }

    /// The addresses known now: those given first, then those discovered.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.targets().all()
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.inner.targets
    }

    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Asks for the other schedulers' addresses, where that is due. Failure is no harm: the call that follows meets
    /// the same scheduler and says what is wrong with it.
    pub(crate) async fn discover(&self, channel: &Channel) {
        if !self.options().discover || !self.targets().take_stale() {
            return;
        }
        let mut cluster = ClusterClient::new(channel.clone());
        let answer =
            tokio::time::timeout(DISCOVERY_TIMEOUT, cluster.list_schedulers(v1::ListSchedulersRequest {})).await;
        match answer {
            Ok(Ok(answer)) => {
                let found =
                    answer.into_inner().schedulers.into_iter().filter(|view| !view.draining).filter_map(|view| {
                        let parsed = view.address.parse();
                        if parsed.is_err() {
                            tracing::warn!(address = view.address, "a scheduler advertises an address that is none");
                        }
                        parsed.ok()
                    });
                self.targets().discovered(found);
            }
            Ok(Err(status)) => tracing::debug!(%status, "the schedulers' addresses could not be learnt"),
            Err(_) => tracing::debug!("the schedulers' addresses did not come in time"),
        }
    }

    /// The job now.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn get_job(&self, job: JobId) -> Result<v1::JobView, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            let request = v1::GetJobRequest { job_id: job.to_string() };
            Ok(jobs(channel).get_job(request).await?.into_inner())
        })
        .await
    }

    /// One page of jobs, newest first.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn list_jobs(&self, request: v1::ListJobsRequest) -> Result<v1::ListJobsResponse, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            Ok(jobs(channel).list_jobs(request.clone()).await?.into_inner())
        })
        .await
    }

    /// One page of a job's tasks, in the order of stages and indexes.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn list_tasks(&self, request: v1::ListTasksRequest) -> Result<v1::ListTasksResponse, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            Ok(jobs(channel).list_tasks(request.clone()).await?.into_inner())
        })
        .await
    }

    /// Attempts that ended without an accepted result; of a single task also its newest one.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn list_attempts(&self, request: v1::ListAttemptsRequest) -> Result<v1::ListAttemptsResponse, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            Ok(jobs(channel).list_attempts(request.clone()).await?.into_inner())
        })
        .await
    }

    /// The tasks that pass the filter, page by page, at most `limit`. The flag says whether there are more.
    ///
    /// # Errors
    /// As [`Client::list_tasks`].
    pub async fn tasks(
        &self,
        job: JobId,
        filter: &TaskFilter,
        limit: usize,
    ) -> Result<(Vec<v1::TaskView>, bool), Error> {
        let mut found = Vec::new();
        let mut page_token = String::new();
        loop {
            let room = u32::try_from(limit - found.len()).unwrap_or(u32::MAX);
            let request = v1::ListTasksRequest {
                job_id: job.to_string(),
                stage: filter.stage.clone().unwrap_or_default(),
                states: filter.states.iter().map(|&state| state.into()).collect(),
                limit: if filter.index.is_some() { TASKS_PER_PAGE } else { room.clamp(1, TASKS_PER_PAGE) },
                page_token,
                index: filter.index,
            };
            let page = self.list_tasks(request).await?;
            // A scheduler that does not know the filter by index sends all of them.
            found.extend(page.tasks.into_iter().filter(|task| filter.has(task)));
            let complete = page.next_page_token.is_empty();
            if found.len() > limit || (found.len() == limit && !complete) {
                found.truncate(limit);
                return Ok((found, true));
            }
            let last = found.last();
            let is_that_task = last.is_some_and(|task| filter.stage.as_ref() == Some(&task.stage));
            let all_of_index = filter.index.is_some() && is_that_task;
            if complete || all_of_index {
                return Ok((found, false));
            }
            page_token = page.next_page_token;
        }
    }

    /// One task.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the stage has no such task, and what any call can meet.
    pub async fn task(&self, job: JobId, stage: &str, index: u32) -> Result<v1::TaskView, Error> {
        let filter = TaskFilter { stage: Some(stage.to_owned()), index: Some(index), states: Vec::new() };
        let (found, _) = self.tasks(job, &filter, 1).await?;
        let missing = || Error::NotFound(format!("stage '{stage}' of job {job} has no task {index}"));
        found.into_iter().next().ok_or_else(missing)
    }

    /// Cancels the job. After the answer no task is assigned but those of `always` stages.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn cancel_job(&self, job: JobId, reason: &str) -> Result<v1::JobState, Error> {
        let patience = self.options().call_timeout;
        self.call("cancel", Repeat::Idempotent, patience, async |channel| {
            let request = v1::CancelJobRequest { job_id: job.to_string(), reason: reason.to_owned() };
            Ok(jobs(channel).cancel_job(request).await?.into_inner().state())
        })
        .await
    }

    /// Runs what failed, and what never ran because of it, again, in place. Answers how many tasks that is.
    ///
    /// Not repeated after an unknown outcome: the tasks may have run again and failed again in the meantime, and a
    /// second retry would run them a third time, which nobody asked for.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when there is nothing to retry; [`Error::Unknown`]; and what any
    /// call can meet.
    pub async fn retry_job(&self, job: JobId) -> Result<u32, Error> {
        let patience = self.options().call_timeout;
        self.call("retry", Repeat::Never, patience, async |channel| {
            Ok(jobs(channel).retry_job(v1::RetryJobRequest { job_id: job.to_string() }).await?.into_inner().tasks)
        })
        .await
    }

    /// What the tasks left: of one stage, or (`None`) of the stages that no other stage reads.
    ///
    /// # Errors
    /// [`Error::NotFound`], and what any call can meet.
    pub async fn list_outputs(&self, job: JobId, stage: Option<&str>) -> Result<Vec<v1::OutputView>, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            let request =
                v1::ListOutputsRequest { job_id: job.to_string(), stage: stage.unwrap_or_default().to_owned() };
            Ok(jobs(channel).list_outputs(request).await?.into_inner().outputs)
        })
        .await
    }

    /// The cluster's executors.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn list_executors(&self) -> Result<Vec<v1::ExecutorView>, Error> {
        let patience = self.options().call_timeout;
        self.call("read", Repeat::Read, patience, async |channel| {
            Ok(cluster(channel).list_executors(v1::ListExecutorsRequest {}).await?.into_inner().executors)
        })
        .await
    }

    /// Has an executor take no new work, and leave if that is wished; or go on as before.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when it is out of reach; and what any call can meet.
    pub async fn drain_executor(&self, wish: v1::DrainExecutorRequest) -> Result<(), Error> {
        let patience = self.options().call_timeout;
        self.call("drain", Repeat::Idempotent, patience, async |channel| {
            cluster(channel).drain_executor(wish.clone()).await?;
            Ok(())
        })
        .await
    }

    /// Says that an executor which is out of reach will not come back.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Precondition`] when it is in reach; and what any call can meet.
    pub async fn remove_executor(&self, executor_id: &str) -> Result<(), Error> {
        let patience = self.options().call_timeout;
        self.call("remove", Repeat::Idempotent, patience, async |channel| {
            let executor_id = executor_id.to_owned();
            cluster(channel).remove_executor(v1::RemoveExecutorRequest { executor_id }).await?;
            Ok(())
        })
        .await
    }

    /// The cluster's schedulers.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn list_schedulers(&self) -> Result<Vec<v1::SchedulerView>, Error> {
        self.list_schedulers_within(self.options().call_timeout).await
    }

    /// Has a scheduler hand its jobs and executors over to its peers and take no new ones; or, with `undo`, take some again.
    /// Answers how many jobs it still owns.
    ///
    /// # Errors
    /// [`Error::NotFound`] where no live scheduler bears the name, and what any call can meet.
    pub async fn drain_scheduler(&self, id: &str, undo: bool) -> Result<u32, Error> {
        let patience = self.options().call_timeout;
        let request = v1::DrainSchedulerRequest { scheduler_id: id.to_owned(), undo };
        self.call("drain", Repeat::Idempotent, patience, async |channel| {
            Ok(cluster(channel).drain_scheduler(request.clone()).await?.into_inner().jobs)
        })
        .await
    }

    /// The namespaces that have jobs or rules.
    ///
    /// # Errors
    /// What any call can meet.
    pub async fn list_namespaces(&self) -> Result<Vec<v1::NamespaceView>, Error> {
        self.call("read", Repeat::Read, self.options().call_timeout, async |channel| {
            Ok(cluster(channel).list_namespaces(v1::ListNamespacesRequest {}).await?.into_inner().namespaces)
        })
        .await
    }

    /// Replaces the rules of a namespace.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for rules that cannot be meant, and what any call can meet.
    pub async fn set_namespace(&self, namespace: &str, rules: v1::NamespaceRules) -> Result<(), Error> {
        let request = v1::SetNamespaceRequest { namespace: namespace.to_owned(), rules: Some(rules) };
        self.call("set", Repeat::Idempotent, self.options().call_timeout, async |channel| {
            cluster(channel).set_namespace(request.clone()).await?;
            Ok(())
        })
        .await
    }

    async fn list_schedulers_within(&self, patience: Duration) -> Result<Vec<v1::SchedulerView>, Error> {
        self.call("read", Repeat::Read, patience, async |channel| {
            Ok(cluster(channel).list_schedulers(v1::ListSchedulersRequest {}).await?.into_inner().schedulers)
        })
        .await
    }

    /// The job now, then again whenever it changed, until it is finished.
    #[must_use]
    pub fn watch_job(&self, job: JobId) -> Watch {
        Watch::new(self.clone(), job)
    }

    /// Waits until the job is finished.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub async fn wait(&self, job: JobId) -> Result<v1::JobView, Error> {
        let mut watch = self.watch_job(job);
        while let Some(view) = watch.next().await? {
            if crate::is_finished(&view) {
                return Ok(view);
            }
        }
        Err(Error::Internal(format!("the watch of job {job} ended before the job did")))
    }

    /// What one attempt wrote.
    #[must_use]
    pub fn read_log(&self, request: LogRequest) -> Log {
        Log::new(self.clone(), request)
    }
}

/// The jobs service behind a connection.
pub(crate) fn jobs(channel: Channel) -> JobsClient<Channel> {
    JobsClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn cluster(channel: Channel) -> ClusterClient<Channel> {
    ClusterClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
