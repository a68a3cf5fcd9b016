//! The service `Data`: outputs and logs of attempts, for whoever reads.

use std::sync::Arc;

use muster_proto::v1::{self, data_server};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::log_reader;
use crate::core::Core;
use crate::keep::{self, Kept};
use crate::keys::AttemptKey;
use crate::output::send;

/// Outputs sent at once; each takes a thread while some of it is read.
const SENDS_MAX: usize = 64;
/// Logs read at once; a follower keeps its place until the attempt is over.
const LOGS_MAX: usize = 512;
/// Chunks between the disk and the network.
const CHUNKS_IN_FLIGHT: usize = 4;

/// The service.
pub(super) struct DataService {
    core: Arc<Core>,
    sends: Arc<Semaphore>,
    logs: Arc<Semaphore>,
}

impl DataService {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core, sends: Arc::new(Semaphore::new(SENDS_MAX)), logs: Arc::new(Semaphore::new(LOGS_MAX)) }
    }
}

fn attempt(wire: Option<&v1::AttemptRef>) -> Result<AttemptKey, Status> {
    wire.ok_or(crate::keys::BadReference::Missing)
        .and_then(|attempt| AttemptKey::from_wire(attempt, None))
        .map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl data_server::Data for DataService {
    type FetchOutputStream = ReceiverStream<Result<v1::OutputChunk, Status>>;
    type ReadLogStream = ReceiverStream<Result<v1::LogChunk, Status>>;
    type KeepOutputsStream = ReceiverStream<Result<v1::KeepOutputsResponse, Status>>;

    async fn fetch_output(
        &self,
        request: Request<v1::FetchOutputRequest>,
    ) -> Result<Response<Self::FetchOutputStream>, Status> {
        let request = request.into_inner();
        let room = self.core.layout.attempt(attempt(request.attempt.as_ref())?);
        // Waits: readers that come in a crowd are served in turn, and their own deadlines bound the wait.
        let slot = self.sends.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (chunks, stream) = mpsc::channel(CHUNKS_IN_FLIGHT);
        self.core.tasks.spawn(async move {
            send::send(room, request.part, chunks).await;
            drop(slot);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn read_log(&self, request: Request<v1::ReadLogRequest>) -> Result<Response<Self::ReadLogStream>, Status> {
        let request = request.into_inner();
        let key = attempt(request.attempt.as_ref())?;
        let slot = self
            .logs
            .clone()
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted(format!("{LOGS_MAX} logs are being read; try again later")))?;
        let reader = log_reader::open(&self.core, key, &request)?;
        let (chunks, stream) = mpsc::channel(CHUNKS_IN_FLIGHT);
        self.core.tasks.spawn(async move {
            reader.run(chunks).await;
            drop(slot);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn keep_outputs(
        &self,
        request: Request<v1::KeepOutputsRequest>,
    ) -> Result<Response<Self::KeepOutputsStream>, Status> {
        let v1::KeepOutputsRequest { executor_id, from_address: from, job_id, outputs } = request.into_inner();
        if executor_id != self.core.id() {
            return Err(Status::failed_precondition(format!("executor_id: this is {}", self.core.id())));
        }
        if self.core.table.is_draining() {
            return Err(Status::failed_precondition(format!("executor {executor_id} takes nothing new")));
        }
        let job = job_id.parse().map_err(|error| Status::invalid_argument(format!("job_id: {error}")))?;
        let (answers, stream) = mpsc::channel(CHUNKS_IN_FLIGHT);
        self.core.tasks.spawn(keep::keep(Arc::clone(&self.core), Kept { job, from, outputs }, answers));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
