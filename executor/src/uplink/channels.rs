//! Connections by address, shared by all who talk to the same process. They connect when first used and again when
//! broken.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_proto::network::Network;
use muster_proto::v1::executors_client::ExecutorsClient;
use tonic::transport::{Channel, Endpoint};

/// A machine that does not even accept a connection within this is down for us.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// A connection is asked for a sign of life this often while something is under way on it.
const PING_EVERY: Duration = Duration::from_secs(3);
/// And counts as broken without one after this.
const PONG_WITHIN: Duration = Duration::from_secs(5);
/// Addresses come from schedulers; more than these at once are not in use.
const CHANNELS_MAX: usize = 1024;
/// Largest answer of a scheduler: the places of 100,000 inputs take about 10 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// All connections.
#[derive(Debug, Clone)]
pub(crate) struct Channels {
    network: Network,
    /// Locked to look one up.
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

impl Channels {
    pub(crate) fn new(network: Network) -> Self {
        Self { network, channels: Arc::default() }
    }

    /// None if it is not an address.
    pub(crate) fn get(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().expect("no holder of this lock panics");
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        if address.is_empty() {
            return None;
        }
        let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(url)
            .ok()?
            .connect_timeout(CONNECT_WITHIN)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PONG_WITHIN)
            .tcp_nodelay(true);
        let channel = self.network.connect_lazy(&endpoint);
        if channels.len() >= CHANNELS_MAX {
            // Those in use go on; they are only looked up anew.
            channels.clear();
        }
        channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }

    /// A scheduler's service for executors.
    pub(crate) fn executors(&self, address: &str) -> Option<ExecutorsClient<Channel>> {
        Some(ExecutorsClient::new(self.get(address)?).max_decoding_message_size(ANSWER_BYTES_MAX))
    }
}
