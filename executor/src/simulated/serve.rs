//! A simulated executor's port: what schedulers ask is passed to its actor.

use std::pin::Pin;

use futures::Stream;
use muster_proto::network::Listener;
use muster_proto::v1;
use muster_proto::v1::executor_server::{Executor, ExecutorServer};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use super::actor::Message;

/// Largest message taken, as real executors have it.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Answers on one stream that wait to be sent.
const ANSWERS: usize = 64;

#[derive(Debug)]
struct Service(mpsc::Sender<Message>);

/// Serves until told otherwise.
pub(super) async fn serve(inbox: mpsc::Sender<Message>, listener: Listener, until: CancellationToken) {
    let service = ExecutorServer::new(Service(inbox)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let server = Server::builder().add_service(service);
    // Dropped at once: schedulers' streams stay open as long as both live.
    let served = until.run_until_cancelled_owned(server.serve_with_incoming(listener.incoming())).await;
    if let Some(Err(error)) = served {
        tracing::error!(%error, "the server ended");
    }
}

fn over() -> Status {
    Status::unavailable("the simulation is over")
}

impl Service {
    async fn tell(&self, message: Message) -> Result<(), Status> {
        self.0.send(message).await.map_err(|_| over())
    }
}

#[tonic::async_trait]
impl Executor for Service {
    type LaunchTasksStream = Pin<Box<dyn Stream<Item = Result<v1::LaunchTasksResponse, Status>> + Send>>;

    async fn launch_tasks(
        &self,
        request: Request<Streaming<v1::LaunchTasksRequest>>,
    ) -> Result<Response<Self::LaunchTasksStream>, Status> {
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let mut requests = request.into_inner();
        let inbox = self.0.clone();
        tokio::spawn(async move {
            // Ends with the stream: either side's end is an end of `message` or of `send`.
            while let Ok(Some(request)) = requests.message().await {
                let (answer, answered) = oneshot::channel();
                if inbox.send(Message::Launch(request, answer)).await.is_err() {
                    return;
                }
                let Ok(answer) = answered.await else { return };
                if answers.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn cancel_tasks(
        &self,
        request: Request<v1::CancelTasksRequest>,
    ) -> Result<Response<v1::CancelTasksResponse>, Status> {
        self.tell(Message::Cancel(request.into_inner())).await?;
        Ok(Response::new(v1::CancelTasksResponse {}))
    }

    async fn ask_jobs(&self, request: Request<v1::AskJobsRequest>) -> Result<Response<v1::AskJobsResponse>, Status> {
        let (answer, answered) = oneshot::channel();
        self.tell(Message::Ask(request.into_inner(), answer)).await?;
        answered.await.map(Response::new).map_err(|_| over())
    }

    async fn forget_jobs(
        &self,
        request: Request<v1::ForgetJobsRequest>,
    ) -> Result<Response<v1::ForgetJobsResponse>, Status> {
        self.tell(Message::Forget(request.into_inner())).await?;
        Ok(Response::new(v1::ForgetJobsResponse {}))
    }

    async fn stop_executor(
        &self,
        _request: Request<v1::StopExecutorRequest>,
    ) -> Result<Response<v1::StopExecutorResponse>, Status> {
        Err(Status::unimplemented("simulated executors end with their process"))
    }
}
