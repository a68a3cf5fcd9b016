//! The other schedulers: who they are, and channels to them.

use std::collections::BTreeMap;
use std::sync::RwLock;

use dashmap::DashMap;
use muster_proto::network::Network;
use muster_proto::storage::SchedulerRecord;
use muster_state::SessionId;
use tonic::transport::Channel;

use crate::links;

/// The live schedulers, this one included, as the store's watch tells.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    live: RwLock<BTreeMap<SessionId, SchedulerRecord>>,
    channels: DashMap<String, Channel>,
}

impl Peers {
    pub(crate) fn set(&self, live: BTreeMap<SessionId, SchedulerRecord>) {
        self.channels.retain(|address, _| live.values().any(|peer| peer.address == *address));
        *self.live.write().expect("no code panics while holding it") = live;
    }

    pub(crate) fn live(&self) -> BTreeMap<SessionId, SchedulerRecord> {
        self.live.read().expect("no code panics while holding it").clone()
    }

    /// Where to go: those that are not draining, or all if all are.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let live = self.live.read().expect("no code panics while holding it");
        let addresses = |draining| {
            // One whose record cannot be read has none.
            let some = live.values().filter(move |peer| peer.draining == draining && !peer.address.is_empty());
            some.map(|peer| peer.address.clone()).collect::<Vec<String>>()
        };
        Some(addresses(false)).filter(|some| !some.is_empty()).unwrap_or_else(|| addresses(true))
    }

    /// A channel to a peer, shared by all calls to it.
    pub(crate) fn channel(&self, network: &Network, address: &str) -> Result<Channel, tonic::Status> {
        if let Some(known) = self.channels.get(address) {
            return Ok(known.clone());
        }
        let channel = links::channel(network, address)
            .map_err(|error| tonic::Status::internal(format!("{address} is not an address: {error}")))?;
        self.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}
