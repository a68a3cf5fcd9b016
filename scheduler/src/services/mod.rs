//! The gRPC services. They translate, look jobs up and forward; every decision is the engine's.

mod admin;
mod attempts;
mod cancel;
mod cluster;
mod definitions;
mod executors;
mod explain;
mod groups;
mod home;
mod jobs;
mod namespaces;
mod operators;
mod peers;
mod registration;
mod relay;
mod schedules;
mod tasks;
mod updates;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use muster_graph::execution::ExecutionGraph;
use muster_graph::ids::JobId;
use muster_proto::network::Listener;
use muster_proto::v1::admin_server::AdminServer;
use muster_proto::v1::cluster_server::ClusterServer;
use muster_proto::v1::definitions_server::DefinitionsServer;
use muster_proto::v1::executor_server::ExecutorServer;
use muster_proto::v1::executors_server::ExecutorsServer;
use muster_proto::v1::groups_server::GroupsServer;
use muster_proto::v1::jobs_server::JobsServer;
use muster_proto::v1::peer_server::PeerServer;
use muster_proto::v1::schedules_server::SchedulesServer;
use muster_proto::v1::updates_server::UpdatesServer;
use muster_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX, storage};
use muster_state::{Keyspace, SessionId};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use crate::accept::{store, unavailable};
use crate::claims;
use crate::engine::Engine;
use crate::load::{self, StoredJob};
use crate::options::CALL_DEADLINE;
use crate::shared::Shared;
use crate::updates::take_up;

/// Calls under way on one connection.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// Marks a call that a scheduler passes on, so that it goes round in no circle.
const FORWARDED: &str = "muster-forwarded";

/// Serves until stopped.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    listener: Listener,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (reporter, health) = tonic_health::server::health_reporter();
    let api = Api { shared, stop: stop.clone() };
    let jobs = JobsServer::new(api.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    reporter.set_serving::<JobsServer<Api>>().await;
    let executors = ExecutorsServer::new(api.clone())
        // After a long time without schedulers an executor lists hundreds of thousands of results.
        .max_decoding_message_size(16 * MESSAGE_BYTES_MAX)
        // All launches that a pull executor has room for come in one answer.
        .max_encoding_message_size(16 * MESSAGE_BYTES_MAX);
    reporter.set_serving::<ExecutorsServer<Api>>().await;
    let relay = ExecutorServer::new(api.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(16 * MESSAGE_BYTES_MAX);
    let definitions = DefinitionsServer::new(api.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let peers = PeerServer::new(api.clone());
    let admin = AdminServer::new(api.clone());
    let schedules = SchedulesServer::new(api.clone());
    let groups = GroupsServer::new(api.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let updates = UpdatesServer::new(api.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let cluster = ClusterServer::new(api).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were compiled with this build");
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(health)
        .add_service(reflection)
        .add_service(jobs)
        .add_service(definitions)
        .add_service(executors)
        .add_service(cluster)
        .add_service(peers)
        .add_service(relay)
        .add_service(admin)
        .add_service(schedules)
        .add_service(groups)
        .add_service(updates)
        .serve_with_incoming_shutdown(listener.incoming(), stop.cancelled_owned())
        .await
}

/// What a peer said, for the caller. A connection that ended in the middle of the call, as when a peer stops, is told
/// here as a fault inside; for the caller it is no more than a reason to ask again.
fn from_peer(status: Status) -> Status {
    match std::error::Error::source(&status) {
        Some(_) if status.code() == tonic::Code::Internal => unavailable(status.message()),
        _ => status,
    }
}

/// All services of one scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    shared: Arc<Shared>,
    /// Long calls end when the scheduler does.
    stop: CancellationToken,
}

/// Where a job is to be asked about.
enum Place {
    /// In this scheduler's memory.
    Here,
    /// With its owner, at this address.
    Peer(String),
    /// It is over: in the store.
    Over(Box<StoredJob>),
}

fn is_forwarded<T>(request: &Request<T>) -> bool {
    request.metadata().contains_key(FORWARDED)
}

/// The same call, for the owner.
fn forwarded<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request.set_timeout(CALL_DEADLINE);
    request
}

/// The same, for a call that lasts as long as the job.
fn followed<T>(message: T) -> Request<T> {
    let mut request = forwarded(message);
    request.metadata_mut().remove("grpc-timeout");
    request
}

/// The id in a request.
fn job_id(text: &str) -> Result<JobId, Status> {
    muster_proto::convert::job_id(text).map_err(Status::from)
}

impl Api {
    /// For what a scheduler does by itself as if it were called.
    pub(crate) fn of(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), stop: CancellationToken::new() }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Finds out where a job is; takes it over first if it has no living owner.
    async fn place_of(&self, id: JobId, forwarded: bool) -> Result<Place, Status> {
        /// While a job is on its way into memory, or its owner changes.
        const LOOK_AGAIN: Duration = Duration::from_millis(10);
        let deadline = tokio::time::Instant::now() + CALL_DEADLINE;
        let mut pause = LOOK_AGAIN;
        loop {
            if self.shared.engine.read(move |engine| engine.job(id).is_some()).await.map_err(unavailable)? {
                return Ok(Place::Here);
            }
            let Some(stored) = load::head(&*self.shared.options.state, id).await.map_err(store)? else {
                return Err(Status::not_found(format!("there is no job {id}")));
            };
            if matches!(stored.keyspace, Keyspace::CompletedJobs | Keyspace::FailedJobs) {
                return Ok(Place::Over(Box::new(stored)));
            }
            self.shared.health.check_trusted()?;
            let mine = self.shared.presence().identity.session;
            match &stored.owner {
                Some((owner, _)) if owner.session_id == mine.0 => {
                    if let Some(why) = self.shared.unreadable.get(&id) {
                        return Err(Status::data_loss(format!("job {id} cannot be read: {}", *why)));
                    }
                }
                Some((owner, _)) if self.shared.peers.live().contains_key(&SessionId(owner.session_id.clone())) => {
                    if !forwarded {
                        return Ok(Place::Peer(owner.address.clone()));
                    }
                }
                // Of an update that is committed: who asks for it takes it up.
                _ if stored.keyspace == Keyspace::StagedJobs => {
                    take_up::with(&self.shared, &stored).await.map_err(store)?;
                }
                _ => claims::claim(&self.shared, id).await,
            }
            if tokio::time::Instant::now() + pause > deadline {
                return Err(unavailable(format!("job {id} is between two owners; try again")));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Looks at a job of this scheduler, or at one that is over. `None`: it has just moved on; ask where it is again.
    async fn look<T: Send + 'static>(
        &self,
        id: JobId,
        place: &Place,
        look: impl FnOnce(&Engine, &storage::JobHead, &ExecutionGraph) -> T + Send + 'static,
    ) -> Result<Option<T>, Status> {
        match place {
            Place::Peer(_) => Ok(None),
            Place::Here => self
                .shared
                .engine
                .read(move |engine| engine.job(id).map(|job| look(engine, &job.head, &job.graph)))
                .await
                .map_err(unavailable),
            Place::Over(stored) => {
                let (graph, ..) = load::graph(&*self.shared.options.state, id, &stored.head, stored.revision)
                    .await
                    .map_err(|error| Status::data_loss(error.to_string()))?;
                let head = stored.head.clone();
                self.shared.engine.read(move |engine| Some(look(engine, &head, &graph))).await.map_err(unavailable)
            }
        }
    }
}

/// A job that moved between two looks: the caller asks again.
fn moved(id: JobId) -> Status {
    unavailable(format!("job {id} has just moved to another owner; try again"))
}
