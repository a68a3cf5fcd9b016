//! A launch stream to an executor, as a scheduler holds one.

use std::net::SocketAddr;

use muster_executor::Handle;
use muster_proto::v1::executor_client::ExecutorClient;
use muster_proto::v1::{self, AttemptRef};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::fake::DEADLINE;
use crate::world::attempts;

/// A scheduler's end of a launch stream.
pub(crate) struct Launcher {
    requests: mpsc::Sender<v1::LaunchTasksRequest>,
    answers: Streaming<v1::LaunchTasksResponse>,
    pub(crate) client: ExecutorClient<tonic::transport::Channel>,
    incarnation: u64,
    sequence: u64,
}

impl Launcher {
    pub(crate) async fn new(handle: &Handle) -> Self {
        Self::to(handle.address(), handle.incarnation()).await
    }

    pub(crate) async fn to(address: SocketAddr, incarnation: u64) -> Self {
        let mut client = ExecutorClient::connect(format!("http://{address}")).await.unwrap();
        let (requests, stream) = mpsc::channel(16);
        let answers = client.launch_tasks(ReceiverStream::new(stream)).await.unwrap().into_inner();
        Self { requests, answers, client, incarnation, sequence: 0 }
    }

    pub(crate) async fn launch_as(&mut self, incarnation: u64, groups: Vec<v1::LaunchGroup>) -> Vec<v1::Refusal> {
        self.sequence += 1;
        let request = v1::LaunchTasksRequest {
            sequence: self.sequence,
            executor_incarnation: incarnation,
            groups,
            reservation: None,
        };
        self.requests.send(request).await.unwrap();
        let answer = tokio::time::timeout(DEADLINE, self.answers.message()).await.expect("an answer").unwrap().unwrap();
        assert_eq!(answer.sequence, self.sequence);
        answer.refused
    }

    pub(crate) async fn launch(&mut self, group: v1::LaunchGroup) -> Vec<v1::Refusal> {
        self.launch_as(self.incarnation, vec![group]).await
    }

    /// Launches what must be accepted, and returns what was launched.
    pub(crate) async fn launch_all(&mut self, group: v1::LaunchGroup) -> Vec<AttemptRef> {
        let attempts = attempts(&group);
        assert_eq!(self.launch(group).await, []);
        attempts
    }

    pub(crate) async fn cancel(&mut self, attempts: &[AttemptRef], token: u64) -> Result<(), Status> {
        self.end(attempts, token, false).await
    }

    pub(crate) async fn ask_back(&mut self, attempts: &[AttemptRef], token: u64) -> Result<(), Status> {
        self.end(attempts, token, true).await
    }

    async fn end(&mut self, attempts: &[AttemptRef], token: u64, only_waiting: bool) -> Result<(), Status> {
        let request = v1::CancelTasksRequest {
            job_id: attempts[0].job_id.clone(),
            fence: Some(v1::Fence { epoch: 1, token }),
            attempts: attempts.to_vec(),
            only_waiting,
        };
        self.client.cancel_tasks(request).await.map(drop)
    }
}
