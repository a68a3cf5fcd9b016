//! The service `Executor`: schedulers launch, cancel and ask.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_graph::ids::JobId;
use muster_proto::v1::executor_server;
use muster_proto::v1::{self};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::reservations::Reserver;
use crate::core::Core;
use crate::faults;
use crate::leave::Leave;

/// Answers on their way on one launch stream.
const ANSWERS_IN_FLIGHT: usize = 64;

/// The service.
pub(super) struct ExecutorService {
    core: Arc<Core>,
}

impl ExecutorService {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl executor_server::Executor for ExecutorService {
    type LaunchTasksStream = ReceiverStream<Result<v1::LaunchTasksResponse, Status>>;

    async fn launch_tasks(
        &self,
        request: Request<Streaming<v1::LaunchTasksRequest>>,
    ) -> Result<Response<Self::LaunchTasksStream>, Status> {
        let mut launches = request.into_inner();
        let (answers, stream) = mpsc::channel(ANSWERS_IN_FLIGHT);
        let core = self.core.clone();
        self.core.tasks.spawn(async move {
            tokio::select! {
                () = core.accepted.cancelled() => {}
                () = answers.closed() => return,
            }
            let mut reserver = Reserver::new(Arc::clone(&core));
            loop {
                let answer = tokio::select! {
                    biased;
                    launch = launches.message() => match launch {
                        Ok(Some(launch)) => {
                            core.home.heard();
                            reserver.heard(launch.reservation);
                            let refused = core.admit(launch.executor_incarnation, launch.groups).await;
                            refused.map(|refused| reserver.answer(launch.sequence, refused))
                        }
                        Ok(None) => return,
                        Err(status) => Err(status),
                    },
                    answer = reserver.offered() => Ok(answer),
                };
                if answer.is_ok() && faults::is_set("lose-launch-answer") {
                    tracing::info!("an answer to launches was lost");
                    return;
                }
                let broken = answer.is_err();
                if answers.send(answer).await.is_err() || broken {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn cancel_tasks(
        &self,
        request: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<v1::CancelTasksResponse>, Status> {
        self.core.home.heard();
        self.core.cancel(request.into_inner()).await?;
        Ok(Response::new(v1::CancelTasksResponse {}))
    }

    async fn ask_jobs(&self, request: Request<v1::AskJobsRequest>) -> Result<Response<v1::AskJobsResponse>, Status> {
        self.core.home.heard();
        let questions = request.into_inner().jobs;
        if !questions.is_empty() && !self.core.accepted.is_cancelled() {
            return Err(Status::unavailable("no scheduler has registered this life of the executor yet"));
        }
        let (asked, refused) = self.core.asked(questions).await?;
        let held = self.core.table.held(Some(&asked));
        let refused = refused.iter().map(JobId::to_string).collect();
        let (executor_id, incarnation) = (self.core.id().to_owned(), self.core.incarnation());
        Ok(Response::new(v1::AskJobsResponse { incarnation, held, refused, executor_id }))
    }

    async fn forget_jobs(
        &self,
        request: Request<v1::ForgetJobsRequest>,
    ) -> Result<Response<v1::ForgetJobsResponse>, Status> {
        self.core.forget(&request.into_inner().job_ids).await;
        Ok(Response::new(v1::ForgetJobsResponse {}))
    }

    async fn stop_executor(
        &self,
        request: Request<v1::StopExecutorRequest>,
    ) -> Result<Response<v1::StopExecutorResponse>, Status> {
        let v1::StopExecutorRequest { drain, reason, stay, undo, within_ms } = request.into_inner();
        tracing::info!(drain, stay, undo, within_ms, reason, "asked to stop, or to go on");
        let at_once = !(drain || stay || undo);
        if at_once {
            self.core.stop_asked.cancel();
        } else {
            self.core.told_to_drain.store(!undo, Ordering::Relaxed);
            self.core.set_draining(!undo);
        }
        let at_the_latest = (within_ms > 0).then(|| Instant::now() + Duration::from_millis(within_ms));
        self.core.leave.send_replace((drain && !undo && !stay).then_some(Leave { at_the_latest }));
        Ok(Response::new(v1::StopExecutorResponse {}))
    }
}
