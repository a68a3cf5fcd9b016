//! What an attempt loads after its launch was answered: the stage's work, its item, the whereabouts of its inputs, and
//! the inputs themselves.
//!
//! Invariant: nothing here is awaited before a launch is acknowledged. A slow scheduler or store delays just the
//! attempts that need something from it.

pub(crate) mod blobs;
pub(crate) mod fetch;
pub(crate) mod inputs;
pub(crate) mod receive;
pub(crate) mod upstreams;

use std::sync::Arc;
use std::time::Duration;

use muster_proto::v1::executors_client::ExecutorsClient;
use rand::RngExt as _;
use tonic::transport::Channel;

use crate::uplink::channels::Channels;
use crate::uplink::home::Home;

/// Deadline of one question to a scheduler; a slow store answers within it or is asked again.
pub(crate) const ASK_WITHIN: Duration = Duration::from_secs(10);
/// First pause after a question that could not be answered.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Exponential, with jitter.
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self::between(PAUSE_MIN, PAUSE_MAX)
    }

    pub(crate) fn between(min: Duration, max: Duration) -> Self {
        Self { next: min, max }
    }

    /// The next pause: half to the whole of a duration that doubles.
    pub(crate) fn next(&mut self) -> Duration {
        let whole = self.next;
        self.next = (self.next * 2).min(self.max);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    pub(crate) async fn pause(&mut self) {
        tokio::time::sleep(self.next()).await;
    }
}

/// Whom to ask about a job: its owner first, then the home scheduler, in turns.
#[derive(Clone)]
pub(crate) struct Advisors {
    pub(crate) channels: Channels,
    pub(crate) home: Arc<Home>,
    pub(crate) owner_address: Arc<str>,
}

impl Advisors {
    /// The scheduler to ask at the given try.
    pub(crate) fn pick(&self, tries: usize) -> Option<ExecutorsClient<Channel>> {
        let home = self.home.address();
        let address = match (tries % 2, home) {
            (1, Some(home)) => home,
            (_, home) if self.owner_address.is_empty() => home?,
            _ => self.owner_address.clone(),
        };
        self.channels.executors(&address)
    }
}

/// Whether the same question may have an answer later.
pub(crate) fn is_passing(status: &tonic::Status) -> bool {
    use tonic::Code;
    !matches!(
        status.code(),
        Code::NotFound | Code::DataLoss | Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented
    )
}
