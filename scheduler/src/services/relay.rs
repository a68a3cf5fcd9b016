//! What peers have for an executor that they do not reach and that is at home here ([`crate::ways`]): passed on as it is,
//! in both directions. Nothing is looked at, kept or decided here; the executor judges what comes, whoever brings it.

use std::pin::Pin;

use futures::future::ready;
use futures::{Stream, StreamExt as _};
use muster_proto::v1;
use muster_proto::v1::executor_server::Executor;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, from_peer};
use crate::accept::unavailable;
use crate::options::PEER_DEADLINE;
use crate::ways::{self, Client, FOR_EXECUTOR};

impl Api {
    /// The straight way to the executor that a call is for: it is never passed on a second time.
    async fn way_for<T>(&self, request: &Request<T>) -> Result<Client, Status> {
        let named = request.metadata().get_bin(FOR_EXECUTOR).and_then(|name| name.to_bytes().ok());
        let id = named.and_then(|name| String::from_utf8(name.to_vec()).ok()).ok_or_else(|| {
            Status::invalid_argument(format!("{FOR_EXECUTOR}: say for which executor; this is a scheduler"))
        })?;
        let mine = self.shared.presence().identity.session.0;
        let name = id.clone();
        let at_home = move |engine: &mut crate::engine::Engine| {
            engine.executor(&name).filter(|known| known.is_at_home(&mine)).map(|known| known.address.clone())
        };
        let address = self.shared.engine.read(at_home).await.map_err(unavailable)?;
        let address = address.ok_or_else(|| unavailable(format!("executor {id} is not at home here")))?;
        ways::straight(&self.shared.options.network, &address)
            .map_err(|error| Status::internal(format!("{address} is not an address: {error}")))
    }
}

async fn in_time<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<Response<T>, Status> {
    let answer = tokio::time::timeout(PEER_DEADLINE, call).await;
    // A connection that breaks here broke between this scheduler and the executor.
    answer.map_err(|_| Status::deadline_exceeded("the executor gave no answer"))?.map_err(from_peer)
}

#[tonic::async_trait]
impl Executor for Api {
    type LaunchTasksStream = Pin<Box<dyn Stream<Item = Result<v1::LaunchTasksResponse, Status>> + Send>>;

    async fn launch_tasks(
        &self,
        request: Request<Streaming<v1::LaunchTasksRequest>>,
    ) -> Result<Response<Self::LaunchTasksStream>, Status> {
        let mut executor = self.way_for(&request).await?;
        // Ends with the peer's stream. What was not answered by then the peer sends again.
        let launches = request
            .into_inner()
            .scan((), |(), launch| ready(launch.ok()))
            .take_until(self.stop.clone().cancelled_owned());
        let answers = in_time(executor.launch_tasks(launches)).await?.into_inner();
        let answers = answers.map(|answer| answer.map_err(from_peer)).take_until(self.stop.clone().cancelled_owned());
        Ok(Response::new(Box::pin(answers)))
    }

    async fn cancel_tasks(
        &self,
        request: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<v1::CancelTasksResponse>, Status> {
        let mut executor = self.way_for(&request).await?;
        in_time(executor.cancel_tasks(request.into_inner())).await
    }

    async fn ask_jobs(&self, request: Request<v1::AskJobsRequest>) -> Result<Response<v1::AskJobsResponse>, Status> {
        let mut executor = self.way_for(&request).await?;
        in_time(executor.ask_jobs(request.into_inner())).await
    }

    async fn forget_jobs(
        &self,
        _request: Request<v1::ForgetJobsRequest>,
    ) -> Result<Response<v1::ForgetJobsResponse>, Status> {
        Err(Status::unimplemented("schedulers pass on launches, cancels and questions, and nothing else"))
    }

    async fn stop_executor(
        &self,
        _request: Request<v1::StopExecutorRequest>,
    ) -> Result<Response<v1::StopExecutorResponse>, Status> {
        Err(Status::unimplemented("ask for it by Cluster.DrainExecutor"))
    }
}
