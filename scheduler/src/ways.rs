//! The two ways to an executor: straight, and through its home, which passes calls on ([`crate::services`], `relay`).
//!
//! A scheduler may be cut off from an executor that a peer reaches. Its jobs there would wait for as long as the cut lasts;
//! giving them to that peer would not end it, for the peer may be cut off from another executor of the same job. So
//! the home passes on what concerns the executor, as it has always passed on what executors say.
//!
//! Nothing rests on which way a call took, or on both having been taken: launches carry their fence, the same attempt twice is
//! one, and one that comes late starts nothing.

use std::time::Duration;

use muster_graph::ids::ExecutorKey;
use muster_proto::network::Network;
use muster_proto::v1::executor_client::ExecutorClient;
use muster_proto::{MESSAGE_BYTES_MAX, v1};
use muster_state::SessionId;
use tonic::metadata::{Binary, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::options::PEER_DEADLINE;
use crate::shared::Shared;

/// Says which executor a call is for that its home is asked to pass on. Names may be any text.
pub(crate) const FOR_EXECUTOR: &str = "muster-executor-bin";
/// While calls take the way through its home, the straight one is tried this often.
const TRY_STRAIGHT_EVERY: Duration = Duration::from_secs(2);

/// A client for an executor, whichever way its calls take.
pub(crate) type Client = ExecutorClient<InterceptedService<Channel, For>>;

/// Puts the executor's name on calls that its home is to pass on.
#[derive(Debug, Clone)]
pub(crate) struct For(Option<MetadataValue<Binary>>);

impl Interceptor for For {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(executor) = &self.0 {
            request.metadata_mut().insert_bin(FOR_EXECUTOR, executor.clone());
        }
        Ok(request)
    }
}

/// Which way is open from here to an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The straight one.
    Straight,
    /// Only the one through its home.
    ThroughHome,
    /// None.
    None,
}

fn client(channel: Channel, executor: For) -> Client {
    ExecutorClient::with_interceptor(channel, executor)
        // All that an executor has of some hundreds of jobs may be much.
        .max_decoding_message_size(16 * MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// The straight way.
pub(crate) fn straight(network: &Network, address: &str) -> Result<Client, tonic::transport::Error> {
    Ok(client(crate::links::channel(network, address)?, For(None)))
}

/// The way through its home. `None`: that is this scheduler, or nobody.
pub(crate) async fn through_home(shared: &Shared, executor: &ExecutorKey) -> Option<Client> {
    let id = executor.id.clone();
    let home = shared.engine.read(move |engine| engine.executor(&id).map(|known| known.home().to_owned())).await;
    let home = SessionId(home.ok()??);
    let peer = shared.peers.live().remove(&home).filter(|_| home != shared.presence().identity.session)?;
    // A connection of its own, as on the straight way: streams that last are not in the way of calls between schedulers.
    let channel = crate::links::channel(&shared.options.network, &peer.address).ok()?;
    Some(client(channel, For(Some(MetadataValue::from_bytes(executor.id.as_bytes())))))
}

/// Waits until the executor answers on this way.
pub(crate) async fn until_open(mut client: Client, executor: &ExecutorKey) {
    loop {
        tokio::time::sleep(TRY_STRAIGHT_EVERY).await;
        let nothing = v1::AskJobsRequest { jobs: Vec::new(), executor_incarnation: executor.incarnation };
        if let Ok(Ok(_)) = tokio::time::timeout(PEER_DEADLINE, client.ask_jobs(nothing)).await {
            return;
        }
    }
}
