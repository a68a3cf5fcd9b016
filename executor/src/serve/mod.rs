//! What the executor serves, on one port: launches and cancels for schedulers, outputs and logs for everybody who
//! reads, health and reflection.

mod data;
mod log_reader;
mod reservations;
mod scheduling;

use std::sync::Arc;
use std::time::Duration;

use muster_proto::network::Listener;
use muster_proto::v1::data_server::DataServer;
use muster_proto::v1::executor_server::ExecutorServer;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::core::Core;
use data::DataService;
use scheduling::ExecutorService;

/// Largest message taken: a batch of launches with their `each` inputs.
const MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Calls at once on one connection; what is beyond waits.
const CALLS_PER_CONNECTION: usize = 256;
/// HTTP/2 streams at once on one connection.
const STREAMS_PER_CONNECTION: u32 = 1024;
/// A connection is asked for a sign of life this often.
const PING_EVERY: Duration = Duration::from_secs(10);
/// And is closed without one after this.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Serves until `until` is given, and lets calls under way end.
pub(crate) async fn serve(core: Arc<Core>, listener: Listener, until: CancellationToken) {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<ExecutorServer<ExecutorService>>().await;
    health.set_serving::<DataServer<DataService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(muster_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were compiled with this program");
    let executor = ExecutorServer::new(ExecutorService::new(core.clone())).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let data = DataServer::new(DataService::new(core)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PONG_WITHIN))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(executor)
        .add_service(data)
        .serve_with_incoming_shutdown(listener.incoming(), until.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "the server ended");
    }
}
