//! The schedulers that a client knows, and the connections to them.
//!
//! Addresses that the user gave come first and never leave the list; discovered ones follow and are replaced by each
//! newer discovery. One of them is the current one, and stays so until it fails: a client that hops without need finds
//! every connection cold.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

use crate::address::Address;
use crate::call::cause;
use crate::options::Options;

/// A connection that carries nothing is probed this often, so that a stream notices a dead peer (a machine that is
/// gone answers nothing, not even a refusal).
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer to a probe may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A cluster has a handful of schedulers. More than this in an answer is a fault, and each could cost a time-out.
const DISCOVERED_MAX: usize = 64;

#[derive(Debug)]
struct Table {
    given: Vec<Address>,
    discovered: Vec<Address>,
    current: usize,
    channels: BTreeMap<Address, Channel>,
    /// A failover happened since the last discovery: who is there may have changed.
    stale: bool,
}

impl Table {
    fn at(&self, place: usize) -> &Address {
        self.given.get(place).or_else(|| self.discovered.get(place - self.given.len())).expect("within the list")
    }

    fn len(&self) -> usize {
        self.given.len() + self.discovered.len()
    }

    /// Goes on to the next address, unless another call has done so already.
    fn leave(&mut self, address: &Address) {
        if self.at(self.current) == address {
            self.current = (self.current + 1) % self.len();
        }
    }
}

/// The table is shared by all clones of a client, and changed by whichever call fails first; the lock is held for a
/// look-up or an update, never across an await.
#[derive(Debug)]
pub(crate) struct Targets {
    table: Mutex<Table>,
}

impl Targets {
    /// `given` is not empty.
    pub(crate) fn new(given: Vec<Address>) -> Self {
        assert!(!given.is_empty(), "a client needs an address");
        let (discovered, channels) = (Vec::new(), BTreeMap::new());
        Self { table: Mutex::new(Table { given, discovered, current: 0, channels, stale: true }) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every update leaves the table whole, so a panic elsewhere cannot have spoilt it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many addresses there are.
    pub(crate) fn len(&self) -> usize {
        self.table().len()
    }

    /// All addresses in the order in which they are tried.
    pub(crate) fn all(&self) -> Vec<Address> {
        let table = self.table();
        (0..table.len()).map(|place| table.at(place).clone()).collect()
    }

    /// The one to try now.
    pub(crate) fn current(&self) -> Address {
        let table = self.table();
        table.at(table.current).clone()
    }

    /// A connection to `address`: the one there is, or a new one. The error is for people.
    pub(crate) async fn channel(
        &self,
        address: &Address,
        options: &Options,
        deadline: Instant,
    ) -> Result<Channel, String> {
        if let Some(channel) = self.table().channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(address.url())
            .map_err(|error| cause(&error))?
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| cause(&error))?
            .connect_timeout(options.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let connect_deadline = deadline.min(Instant::now() + options.connect_timeout);
        match timeout_at(connect_deadline, options.network.connect(&endpoint)).await {
            Ok(Ok(channel)) => {
                self.table().channels.insert(address.clone(), channel.clone());
                Ok(channel)
            }
            Ok(Err(error)) => Err(cause(&error)),
            Err(_) => Err(format!("no connection within {:?}", options.connect_timeout)),
        }
    }

    /// The connection is no good: drop it and go on to the next address.
    pub(crate) fn failed(&self, address: &Address) {
        let mut table = self.table();
        table.channels.remove(address);
        table.stale = true;
        table.leave(address);
    }

    /// The connection is good, but the next call should try another scheduler.
    pub(crate) fn skip(&self, address: &Address) {
        self.table().leave(address);
    }

    /// Stay with the one that answered.
    pub(crate) fn succeeded(&self, address: &Address) {
        let mut table = self.table();
        if let Some(place) = (0..table.len()).find(|&place| table.at(place) == address) {
            table.current = place;
        }
    }

    /// Whether a discovery is due. Asking takes the duty: one of several calls does it.
    pub(crate) fn take_stale(&self) -> bool {
        std::mem::take(&mut self.table().stale)
    }

    /// Replaces what earlier discoveries found.
    pub(crate) fn discovered(&self, found: impl IntoIterator<Item = Address>) {
        let mut table = self.table();
        let current = table.at(table.current).clone();
        let mut list: Vec<Address> = Vec::new();
        for address in found {
            if list.len() < DISCOVERED_MAX && !table.given.contains(&address) && !list.contains(&address) {
                list.push(address);
            }
        }
        // The one in use stays reachable even if the answer left it out.
        if !table.given.contains(&current) && !list.contains(&current) {
            list.push(current.clone());
        }
        table.discovered = list;
        table.current = (0..table.len()).find(|&place| *table.at(place) == current).unwrap_or(0);
        let known: Vec<Address> = (0..table.len()).map(|place| table.at(place).clone()).collect();
        table.channels.retain(|address, _| known.contains(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        format!("127.0.0.1:{port}").parse().expect("an address")
    }

    #[test]
    fn given_addresses_come_first_and_discovery_replaces_only_discovered_ones() {
        let targets = Targets::new(vec![address(1), address(2)]);
        targets.discovered([address(3), address(2), address(3)]);
        assert_eq!(targets.all(), [address(1), address(2), address(3)]);
        targets.discovered([address(4)]);
        assert_eq!(targets.all(), [address(1), address(2), address(4)]);
    }

    #[test]
    fn the_address_in_use_survives_a_discovery_that_leaves_it_out() {
        let targets = Targets::new(vec![address(1)]);
        targets.discovered([address(3)]);
        targets.failed(&address(1));
        assert_eq!(targets.current(), address(3));
        targets.discovered([address(5)]);
        assert_eq!(targets.current(), address(3));
    }

    #[test]
    fn one_failure_seen_by_two_calls_moves_on_once() {
        let targets = Targets::new(vec![address(1), address(2), address(3)]);
        targets.failed(&address(1));
        targets.failed(&address(1));
        assert_eq!(targets.current(), address(2));
    }
}
