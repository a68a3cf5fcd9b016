//! How patient a client is.

use std::time::Duration;

use muster_proto::network::Network;

/// The patience of a [`Client`](crate::Client). All limits are per client, and can be shortened per process.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long the first contact may take, over all addresses and tries. Short: a person is waiting, and an address
    /// that is wrong stays wrong. Default 3 s.
    pub first_contact_timeout: Duration,
    /// How long establishing one connection may take before the next address is tried. Default 2 s.
    pub connect_timeout: Duration,
    /// How long one try of a call may take before the next scheduler is asked. Default 10 s, which is longer than a
    /// store's leader election, so that a call that waits for one is not given up while it makes progress.
    pub try_timeout: Duration,
    /// How long a call may take over all of its tries. Default 30 s, which is longer than a dead scheduler's session
    /// (10 s) and the takeover of its jobs.
    pub call_timeout: Duration,
    /// How long a stream (watch, log, download) goes on looking for a scheduler before it gives up. Starts anew with
    /// everything received. Default 5 min: whoever watches a job for hours should live through a cluster's upgrade.
    pub stream_timeout: Duration,
    /// Before the second round over all addresses; doubles with each round, with full jitter. Default 50 ms.
    pub backoff: Duration,
    /// At most. Default 2 s.
    pub backoff_max: Duration,
    /// Whether to ask the first scheduler reached for the addresses of the others. Default true.
    pub discover: bool,
    /// How schedulers are reached. Default TCP.
    pub network: Network,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            first_contact_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(2),
            try_timeout: Duration::from_secs(10),
            call_timeout: Duration::from_secs(30),
            stream_timeout: Duration::from_secs(300),
            backoff: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            discover: true,
            network: Network::Tcp,
        }
    }
}
