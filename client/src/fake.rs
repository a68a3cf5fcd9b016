//! A scripted cluster in the test's own process: real gRPC over loopback, answers and faults as the test says.
//!
//! Each [`FakeScheduler`] lives on a runtime of its own, so that [`FakeScheduler::kill`] cuts its connections at once,
//! as `kill -9` would. All schedulers of a [`FakeCluster`] share one state, as real ones do.

mod cluster;
mod explain;
mod groups;
mod outputs;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use muster_graph::ids::JobId;
use muster_proto::v1;
use muster_proto::v1::cluster_server::ClusterServer;
use muster_proto::v1::groups_server::GroupsServer;
use muster_proto::v1::jobs_server::{Jobs, JobsServer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// What goes wrong with the next call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The scheduler says no, with this status, before it does anything.
    Refuse(Status),
    /// The call takes effect, and then the answer is lost.
    LoseAnswer,
    /// The call takes no effect, and no answer ever comes.
    Hang,
}

/// What a submit brought, put together again.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The job's id.
    pub job: JobId,
    /// Its key.
    pub idempotency_key: String,
    /// Its spec, items included.
    pub spec: v1::JobSpec,
}

/// What the path of a [`FakeFile`] begins with if it is a symbolic link, whose target is the content.
pub const LINK: &str = "link:";

/// A file of an output: path and content.
pub type FakeFile = (String, Vec<u8>);

/// The state behind all schedulers. Tests fill it and read it.
#[derive(Debug, Default)]
pub struct FakeState {
    /// Names of the calls received, in order, each with the address of the scheduler that got it.
    pub calls: Vec<(String, String)>,
    /// Faults of the calls to come, by the name of the call.
    pub faults: BTreeMap<&'static str, VecDeque<Fault>>,
    /// Jobs that were submitted.
    pub accepted: Vec<Accepted>,
    /// What reads of jobs answer. A watch tells the views of its job in this order.
    pub views: Vec<v1::JobView>,
    /// A watch breaks off after this many views, once.
    pub break_watch_after: Option<usize>,
    /// The tasks of every job.
    pub tasks: Vec<v1::TaskView>,
    /// Questions about what does not run, with their answers.
    pub explanations: Vec<(v1::ExplainRequest, v1::Explanation)>,
    /// Logs by stage, index, attempt and whether it is standard error.
    pub logs: BTreeMap<(String, u32, u32, bool), Vec<u8>>,
    /// A log breaks off after this many bytes, once.
    pub break_log_after: Option<usize>,
    /// Outputs by stage and index.
    pub outputs: BTreeMap<(String, u32), Vec<FakeFile>>,
    /// An output breaks off after this many files, once.
    pub break_output_after: Option<usize>,
    /// Whether outputs arrive with a checksum that is not theirs.
    pub damage_outputs: bool,
    /// What the list of executors answers.
    pub executors: Vec<v1::ExecutorView>,
    /// What the list of schedulers answers.
    pub schedulers: Vec<v1::SchedulerView>,
    /// What the list of namespaces answers.
    pub namespaces: Vec<v1::NamespaceView>,
    /// What reads of groups answer. A watch tells the views of its group in this order, and breaks off as that of a job.
    pub groups: Vec<v1::GroupView>,
    /// How often each job was retried.
    pub retries: u32,
    /// Reasons of the cancels received, of jobs and of groups.
    pub cancels: Vec<String>,
}

/// A cluster whose schedulers share one scripted state.
#[derive(Debug, Clone, Default)]
pub struct FakeCluster {
    state: Arc<Mutex<FakeState>>,
}

impl FakeCluster {
    /// The state, to fill or to read. The lock is for the length of a statement.
    ///
    /// # Panics
    /// Never: a panic of another test thread leaves the state readable.
    pub fn state(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one more scheduler, on a free port of the loopback, and adds it to the list of schedulers.
    ///
    /// # Panics
    /// When the machine gives no port or no thread: a test cannot go on.
    #[must_use]
    pub fn start_scheduler(&self) -> FakeScheduler {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a test's runtime starts");
        // Bound without the runtime, so that it can be started from inside another one.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        listener.set_nonblocking(true).expect("a fresh socket can be switched");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let service = Service { cluster: self.clone(), address: address.clone() };
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a fresh socket can be watched");
            let served = tonic::transport::Server::builder()
                .add_service(JobsServer::new(service.clone()))
                .add_service(GroupsServer::new(service.clone()))
                .add_service(ClusterServer::new(service))
                .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)))
                .await;
            served.expect("the fake serves until it is killed");
        });
        let mut state = self.state();
        let scheduler_id = format!("scheduler-{}", state.schedulers.len());
        let view = v1::SchedulerView { scheduler_id, address: address.clone(), ..Default::default() };
        state.schedulers.push(view);
        FakeScheduler { address, runtime: Some(runtime) }
    }
}

/// One scheduler of the cluster. Dropping it kills it.
#[derive(Debug)]
pub struct FakeScheduler {
    address: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl FakeScheduler {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends it at once, with all its connections.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for FakeScheduler {
    fn drop(&mut self) {
        self.kill();
    }
}

#[derive(Debug, Clone)]
struct Service {
    cluster: FakeCluster,
    address: String,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A connection that breaks looks like this to the other side.
fn broken_off() -> Status {
    Status::unavailable("the connection broke off")
}

fn answers<T: Send + 'static>(items: Vec<Result<T, Status>>) -> Response<Answers<T>> {
    Response::new(futures::stream::iter(items).boxed())
}

impl Service {
    /// Notes the call and does what the script says. True: the answer is to be lost.
    async fn begin(&self, call: &'static str) -> Result<bool, Status> {
        let fault = {
            let mut state = self.cluster.state();
            state.calls.push((call.to_owned(), self.address.clone()));
            state.faults.get_mut(call).and_then(VecDeque::pop_front)
        };
        match fault {
            None => Ok(false),
            Some(Fault::LoseAnswer) => Ok(true),
            Some(Fault::Refuse(status)) => Err(status),
            Some(Fault::Hang) => {
                // Far beyond every deadline of a test.
                tokio::time::sleep(Duration::from_secs(3600)).await;
                Err(broken_off())
            }
        }
    }

    fn view(&self, job_id: &str) -> Result<v1::JobView, Status> {
        let state = self.cluster.state();
        let found = state.views.iter().rev().find(|view| view.job_id == job_id).cloned();
        found.ok_or_else(|| Status::not_found(format!("there is no job {job_id}")))
    }
}

#[tonic::async_trait]
impl Jobs for Service {
    type WatchJobStream = Answers<v1::JobView>;
    type ReadLogStream = Answers<v1::LogChunk>;
    type ReadOutputStream = Answers<v1::OutputChunk>;

    async fn submit(
        &self,
        request: Request<Streaming<v1::SubmitRequest>>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let lose = self.begin("submit").await?;
        let mut stream = request.into_inner();
        let mut header = None;
        while let Some(message) = stream.message().await? {
            match (message.part, &mut header) {
                (Some(v1::submit_request::Part::Header(first)), None) => header = Some(first),
                (Some(v1::submit_request::Part::Items(more)), Some(v1::SubmitHeader { spec: Some(spec), .. })) => {
                    let stage = spec.stages.get_mut(more.stage as usize);
                    match stage.and_then(|stage| stage.tasks.as_mut()) {
                        Some(v1::stage_spec::Tasks::Items(items)) => items.values.extend(more.values),
                        _ => return Err(Status::invalid_argument("items for a stage that takes none")),
                    }
                }
                _ => return Err(Status::invalid_argument("one header first, then items")),
            }
        }
        let header = header.ok_or_else(|| Status::invalid_argument("no header"))?;
        let spec = header.spec.ok_or_else(|| Status::invalid_argument("no spec"))?;
        let idempotency_key = header.idempotency_key;
        let answer = {
            let mut state = self.cluster.state();
            match state.accepted.iter().find(|accepted| accepted.idempotency_key == idempotency_key) {
                Some(accepted) if accepted.spec == spec => {
                    v1::SubmitResponse { job_id: accepted.job.to_string(), existed: true }
                }
                Some(_) => return Err(Status::already_exists("the idempotency key was used with another spec")),
                None => {
                    let job = JobId(state.accepted.len() as u64 + 1);
                    state.accepted.push(Accepted { job, idempotency_key, spec });
                    v1::SubmitResponse { job_id: job.to_string(), existed: false }
                }
            }
        };
        if lose { Err(broken_off()) } else { Ok(Response::new(answer)) }
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Result<Response<v1::JobView>, Status> {
        let lose = self.begin("get_job").await?;
        let view = self.view(&request.into_inner().job_id)?;
        if lose { Err(broken_off()) } else { Ok(Response::new(view)) }
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Result<Response<v1::ListJobsResponse>, Status> {
        self.begin("list_jobs").await?;
        let request = request.into_inner();
        let state = self.cluster.state();
        let limit = if request.limit == 0 { 100 } else { request.limit as usize };
        let from: usize = request.page_token.parse().unwrap_or(0);
        let fits = |view: &&v1::JobView| {
            (request.states.is_empty() || request.states.contains(&view.state))
                && (request.namespace.is_empty() || request.namespace == view.namespace)
                && request.group.as_ref().is_none_or(|group| groups::holds(group, &view.group, request.recursive))
        };
        let all: Vec<v1::JobView> = state.views.iter().filter(fits).cloned().collect();
        let next_page_token = if from + limit < all.len() { (from + limit).to_string() } else { String::new() };
        let jobs = all.into_iter().skip(from).take(limit).collect();
        Ok(Response::new(v1::ListJobsResponse { jobs, next_page_token }))
    }

    async fn watch_job(&self, request: Request<v1::WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        self.begin("watch_job").await?;
        let job_id = request.into_inner().job_id;
        self.view(&job_id)?;
        let mut state = self.cluster.state();
        let mut views: Vec<_> = state.views.iter().filter(|view| view.job_id == job_id).cloned().map(Ok).collect();
        if let Some(after) = state.break_watch_after.take() {
            views.truncate(after);
            views.push(Err(broken_off()));
            // Whoever subscribes again gets the present first, which is what was told last.
            if let Some(told) = after.checked_sub(1) {
                let mut place = 0;
                state.views.retain(|view| {
                    let of_job = view.job_id == job_id;
                    place += usize::from(of_job);
                    !of_job || place > told
                });
            }
        }
        Ok(answers(views))
    }

    async fn list_attempts(
        &self,
        _request: Request<v1::ListAttemptsRequest>,
    ) -> Result<Response<v1::ListAttemptsResponse>, Status> {
        self.begin("list_attempts").await?;
        Ok(Response::new(v1::ListAttemptsResponse::default()))
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Result<Response<v1::ListTasksResponse>, Status> {
        self.begin("list_tasks").await?;
        let request = request.into_inner();
        let state = self.cluster.state();
        let limit = if request.limit == 0 { 100 } else { request.limit as usize };
        let from: usize = request.page_token.parse().unwrap_or(0);
        let fits = |task: &&v1::TaskView| {
            (request.stage.is_empty() || request.stage == task.stage)
                && (request.states.is_empty() || request.states.contains(&task.state))
                && request.index.is_none_or(|index| index == task.index)
        };
        let all: Vec<v1::TaskView> = state.tasks.iter().filter(fits).cloned().collect();
        let next_page_token = if from + limit < all.len() { (from + limit).to_string() } else { String::new() };
        let tasks = all.into_iter().skip(from).take(limit).collect();
        Ok(Response::new(v1::ListTasksResponse { tasks, next_page_token }))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Result<Response<v1::Explanation>, Status> {
        self.explanation(request.into_inner()).await
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let lose = self.begin("cancel_job").await?;
        let request = request.into_inner();
        let mut view = self.view(&request.job_id)?;
        view.state = v1::JobState::Cancelled.into();
        let mut state = self.cluster.state();
        state.cancels.push(request.reason);
        state.views.push(view);
        if lose {
            return Err(broken_off());
        }
        Ok(Response::new(v1::CancelJobResponse { state: v1::JobState::Cancelled.into() }))
    }

    async fn retry_job(&self, request: Request<v1::RetryJobRequest>) -> Result<Response<v1::RetryJobResponse>, Status> {
        let lose = self.begin("retry_job").await?;
        self.view(&request.into_inner().job_id)?;
        self.cluster.state().retries += 1;
        if lose { Err(broken_off()) } else { Ok(Response::new(v1::RetryJobResponse { tasks: 2 })) }
    }

    async fn read_log(
        &self,
        request: Request<v1::ReadTaskLogRequest>,
    ) -> Result<Response<Self::ReadLogStream>, Status> {
        self.log(request.into_inner()).await
    }

    async fn list_outputs(
        &self,
        request: Request<v1::ListOutputsRequest>,
    ) -> Result<Response<v1::ListOutputsResponse>, Status> {
        self.outputs(request.into_inner()).await
    }

    async fn read_output(
        &self,
        request: Request<v1::ReadOutputRequest>,
    ) -> Result<Response<Self::ReadOutputStream>, Status> {
        self.output(request.into_inner()).await
    }
}
