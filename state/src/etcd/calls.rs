//! Calls: which member, until when, and what an error means.
//!
//! Each member has a client of its own, so that it is we who decide where a call goes. All calls go to one member until
//! that one fails; then to the next. Invariants:
//! - Every call ends by its deadline.
//! - A write is sent again only if it is certain that it was never sent. Otherwise an error that does not exclude that
//!   it happened is `Unknown`.

use std::error::Error as _;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tonic::Code;

use super::EtcdOptions;
use crate::Error;

/// etcd counts more frequent pings as an attack (its grpc-keepalive-min-time is 5 s by default).
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// A connection whose ping is not answered in this time is given up, and a watch on it goes on elsewhere.
const PING_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two rounds over the members.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// A read that has several members to ask waits for one of them at most this part of its deadline.
const READ_SHARES: u32 = 2;
/// A write that has several members to go to is waited for at least this part of its deadline. A member loses what it had
/// sent to a leader that died, and says so only after longer than it takes to elect another one; who waits for that
/// while leaders come and go may wait for ever. Whoever sent the write sends it again, to another member.
const WRITE_SHARES: u32 = 4;

/// What a call may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    /// Doing it twice is as good as once: it is tried on other members until its deadline.
    Repeatable,
    /// It changes something.
    Write,
}

struct Member {
    endpoint: String,
    client: OnceCell<Client>,
}

impl std::fmt::Debug for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Members").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The members of an etcd cluster.
pub(super) struct Members {
    members: Vec<Member>,
    current: AtomicUsize,
    /// How long a write is waited for now, in milliseconds: twice as long as the last one took, or was waited for in vain.
    patience_ms: AtomicU64,
    pub(super) options: EtcdOptions,
}

/// What became of one attempt.
struct Failure {
    error: Error,
    /// It is certain that nothing was sent.
    unsent: bool,
}

impl Members {
    pub(super) fn new(options: EtcdOptions) -> Self {
        let members: Vec<Member> = options
            .endpoints
            .iter()
            .map(|endpoint| Member { endpoint: endpoint.clone(), client: OnceCell::new() })
            .collect();
        // Schedulers that start together spread over the members.
        let current = AtomicUsize::new(rand::random_range(0..members.len()));
        let patience_ms = AtomicU64::new(0);
        Self { members, current, patience_ms, options }
    }

    fn write_patience(&self) -> Duration {
        let most = self.options.call_timeout;
        let least = if self.members.len() > 1 { most / WRITE_SHARES } else { most };
        Duration::from_millis(self.patience_ms.load(Ordering::Relaxed)).clamp(least, most)
    }

    fn write_took(&self, time: Duration) {
        let patience_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_mul(2);
        self.patience_ms.store(patience_ms, Ordering::Relaxed);
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Where a member is, as it was given.
    pub(super) fn endpoint(&self, member: usize) -> &str {
        &self.members[member].endpoint
    }

    /// The member to talk to now, by number, for [`Self::leave`].
    pub(super) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len()
    }

    /// This member failed: go on with the next. If another call has done so already, that stands.
    pub(super) fn leave(&self, member: usize) {
        let next = (member + 1) % self.members.len();
        let _ = self.current.compare_exchange(member, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The client of a member. Without a password this only prepares the connection; with one it logs in.
    pub(super) async fn client(&self, member: usize) -> Result<Client, etcd_client::Error> {
        let member = &self.members[member];
        let client = member.client.get_or_try_init(|| async {
            let mut options = ConnectOptions::new()
                .with_connect_timeout(self.options.connect_timeout)
                .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
                .with_require_leader(true);
            if let Some((user, password)) = &self.options.user {
                options = options.with_user(user, password).with_auto_token_refresh(true);
            }
            Client::connect([&member.endpoint], Some(options)).await
        });
        client.await.cloned()
    }

    /// Calls one member after the other, as its nature allows.
    pub(super) async fn call<T, F>(&self, nature: Nature, call: impl Fn(Client) -> F + Send + Sync) -> Result<T, Error>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let deadline = Instant::now() + self.options.call_timeout;
        let share = match nature {
            Nature::Repeatable if self.members.len() > 1 => self.options.call_timeout / READ_SHARES,
            Nature::Repeatable => self.options.call_timeout,
            Nature::Write => self.write_patience(),
        };
        let mut tried = 0;
        loop {
            let member = self.current();
            let until = deadline.min(Instant::now() + share);
            let failure = match self.attempt(member, nature, until, &call).await {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            if failure.error.is_retryable() {
                self.leave(member);
            }
            let again = failure.error.is_retryable() && (failure.unsent || nature == Nature::Repeatable);
            if !again {
                return Err(failure.error);
            }
            tried += 1;
            let pause = if tried % self.members.len() == 0 { ROUND_PAUSE } else { Duration::ZERO };
            if Instant::now() + pause >= deadline {
                return Err(failure.error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt<T, F>(
        &self,
        member: usize,
        nature: Nature,
        until: Instant,
        call: &(impl Fn(Client) -> F + Send + Sync),
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, etcd_client::Error>> + Send,
    {
        let endpoint = &self.members[member].endpoint;
        let client = match tokio::time::timeout_at(until, self.client(member)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(Failure { error: classify(&error, Nature::Repeatable), unsent: true }),
            Err(_) => {
                let error = Error::Unavailable(format!("{endpoint} did not answer in time"));
                return Err(Failure { error, unsent: true });
            }
        };
        let began = Instant::now();
        let outcome = tokio::time::timeout_at(until, call(client)).await;
        if nature == Nature::Write && !matches!(outcome, Ok(Err(_))) {
            self.write_took(began.elapsed());
        }
        match outcome {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Failure { unsent: was_not_sent(&error), error: classify(&error, nature) }),
            Err(_) => {
                let why = format!("{endpoint} did not answer in time");
                let error = match nature {
                    Nature::Write => Error::Unknown(why),
                    Nature::Repeatable => Error::Unavailable(why),
                };
                Err(Failure { error, unsent: false })
            }
        }
    }
}

/// Whether the error says that no connection was made: then the request cannot have arrived.
fn was_not_sent(error: &etcd_client::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = match error {
        etcd_client::Error::GRpcStatus(status) => status.source(),
        etcd_client::Error::TransportError(error) => Some(error),
        _ => None,
    };
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// What an error of the client means to a caller.
pub(super) fn classify(error: &etcd_client::Error, nature: Nature) -> Error {
    match error {
        etcd_client::Error::GRpcStatus(status) => {
            let class = classify_status(status.code(), status.message(), nature);
            match class {
                Error::Unknown(why) if was_not_sent(error) => Error::Unavailable(why),
                class => class,
            }
        }
        etcd_client::Error::TransportError(_) | etcd_client::Error::IoError(_) => {
            if nature == Nature::Write && !was_not_sent(error) {
                Error::Unknown(error.to_string())
            } else {
                Error::Unavailable(error.to_string())
            }
        }
        etcd_client::Error::WatchError(_) | etcd_client::Error::LeaseKeepAliveError(_) => {
            Error::Unavailable(error.to_string())
        }
        other => Error::Fatal(other.to_string()),
    }
}

/// By code, and where etcd uses one code for several things, by its message (api/v3rpc/rpctypes/error.go).
fn classify_status(code: Code, message: &str, nature: Nature) -> Error {
    let maybe = |why: String| match nature {
        Nature::Write => Error::Unknown(why),
        Nature::Repeatable => Error::Unavailable(why),
    };
    let text = format!("etcd: {message}");
    match code {
        // Both are checked before the request is proposed.
        Code::Unavailable if message.contains("no leader") => Error::Unavailable(text),
        Code::ResourceExhausted if message.contains("too many requests") => Error::Unavailable(text),
        Code::ResourceExhausted if message.contains("space exceeded") => {
            Error::NoSpace(format!("{text}; compact and defragment it, or raise its quota, then disarm the alarm"))
        }
        Code::NotFound if message.contains("lease not found") => Error::SessionLost,
        // Filled in by the caller, who knows what was asked for.
        Code::OutOfRange if message.contains("has been compacted") => Error::Compacted { asked: 0, oldest: 0 },
        Code::OutOfRange if message.contains("future revision") => {
            Error::Fatal(format!("{text}: was the store restored from an older backup?"))
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            Error::Fatal(format!("{text}; check user and password in the etcd URL, and the user's role"))
        }
        Code::InvalidArgument if message.contains("auth") || message.contains("user name") => {
            Error::Fatal(format!("{text}; check user and password in the etcd URL"))
        }
        // Time-outs, changes of leader, a server that stops, a connection that broke: the request may be in the log.
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss => maybe(text),
        _ => Error::Fatal(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_waited_for_by_what_writes_took_of_late() {
        let members =
            |endpoints: &str| Members::new(EtcdOptions::parse(&format!("//{endpoints}?call_timeout_ms=4000")).unwrap());
        let three = members("a:1,b:1,c:1");
        let patience_after = |ms| {
            three.write_took(Duration::from_millis(ms));
            three.write_patience().as_millis()
        };
        assert_eq!(three.write_patience().as_millis(), 1000);
        assert_eq!([1000, 2000, 5000, 700, 3].map(patience_after), [2000, 4000, 4000, 1400, 1000]);
        assert_eq!(members("a:1").write_patience().as_millis(), 4000, "there is no other member to go to");
    }

    #[test]
    fn what_may_have_happened_is_unknown_and_what_cannot_is_not() {
        let write = |code, message| classify_status(code, message, Nature::Write);
        for (code, message) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: request timed out, possibly due to previous leader failure"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "error reading a body from connection"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
            (Code::Cancelled, "Timeout expired"),
            (Code::Unknown, "h2 protocol error"),
            (Code::Internal, "stream closed"),
        ] {
            assert!(matches!(write(code, message), Error::Unknown(_)), "{message}");
            assert!(matches!(classify_status(code, message, Nature::Repeatable), Error::Unavailable(_)), "{message}");
        }
        assert!(matches!(write(Code::Unavailable, "etcdserver: no leader"), Error::Unavailable(_)));
        assert!(matches!(write(Code::ResourceExhausted, "etcdserver: too many requests"), Error::Unavailable(_)));
        assert!(matches!(
            write(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Error::NoSpace(_)
        ));
        assert!(matches!(write(Code::NotFound, "etcdserver: requested lease not found"), Error::SessionLost));
        assert!(matches!(
            write(Code::InvalidArgument, "etcdserver: duplicate key given in txn request"),
            Error::Fatal(_)
        ));
        assert!(matches!(write(Code::PermissionDenied, "etcdserver: permission denied"), Error::Fatal(_)));
    }
}
