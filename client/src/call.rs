//! One call, over as many tries as its deadline and its nature allow.
//!
//! Invariant: a call that may not be repeated is not sent again once it may have reached a scheduler, and a failure
//! that leaves the outcome open is reported as [`Error::Unknown`], never as something that did not happen.

use std::error::Error as _;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::address::Address;
use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Error, Tried};

/// gRPC's own name (proposal A6) for "come back after so many milliseconds".
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// What a scheduler that only knows our own name for it says instead.
const RETRY_AFTER: &str = "retry-after-ms";
/// A scheduler can ask for patience, but not for more than this at once: the next one may have room.
const PUSHBACK_MAX: Duration = Duration::from_secs(30);

/// What repeating a call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: it only reads.
    Read,
    /// The same as sending it once.
    Idempotent,
    /// Something else than sending it once.
    Never,
}

/// What an error says about the call.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Another try would get the same answer.
    Final(Error),
    /// It did not reach the scheduler.
    NotSent(String),
    /// It may have reached the scheduler.
    Lost(String),
    /// The scheduler refused to do it now.
    Refused { retry_after: Option<Duration>, message: String },
}

/// Reads a verdict out of a status.
pub(crate) fn judge(status: &Status) -> Verdict {
    let message = status.message().to_owned();
    match status.code() {
        Code::NotFound => Verdict::Final(Error::NotFound(message)),
        Code::AlreadyExists => Verdict::Final(Error::AlreadyExists(message)),
        Code::InvalidArgument | Code::OutOfRange => Verdict::Final(Error::InvalidArgument(message)),
        Code::FailedPrecondition => Verdict::Final(Error::Precondition(message)),
        Code::PermissionDenied | Code::Unauthenticated => Verdict::Final(Error::Denied(message)),
        Code::Unimplemented => Verdict::Final(Error::Unsupported(message)),
        Code::DataLoss => Verdict::Final(Error::DataLoss(message)),
        // With a cause it was made here: the connection ended in the middle of the call, as when a scheduler stops.
        Code::Internal if status.source().is_none() => Verdict::Final(Error::Internal(message)),
        Code::ResourceExhausted => Verdict::Refused { retry_after: retry_after(status), message },
        Code::Ok
        | Code::Unavailable
        | Code::Internal
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted => {
            if never_connected(status) {
                Verdict::NotSent(cause(status))
            } else {
                Verdict::Lost(cause(status))
            }
        }
    }
}

fn retry_after(status: &Status) -> Option<Duration> {
    let metadata = status.metadata();
    let value = metadata.get(PUSHBACK).or_else(|| metadata.get(RETRY_AFTER))?;
    let millis = value.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(millis).min(PUSHBACK_MAX))
}

/// Whether the status was made on this side because there was no connection to send anything over.
fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost reason, which is the one that tells a person something ("connection refused").
pub(crate) fn cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match error.downcast_ref::<Status>() {
        Some(status) if status.source().is_none() => {
            format!("{}: {}", status.code(), if status.message().is_empty() { "no message" } else { status.message() })
        }
        _ => innermost.to_string(),
    }
}

/// What became of the tries so far.
#[derive(Debug)]
struct Tries {
    began: Instant,
    tried: Vec<Tried>,
    /// The last try that may have reached a scheduler.
    lost: Option<String>,
    /// The last refusal.
    refused: Option<(Option<Duration>, String)>,
    /// Failures since the last pause: a pause comes after every address has failed once.
    in_round: usize,
}

impl Tries {
    fn note(&mut self, address: &Address, why: String) {
        tracing::debug!(%address, why, "a try of a call failed");
        match self.tried.iter_mut().find(|tried| tried.address == *address) {
            Some(tried) => tried.why = why,
            None => self.tried.push(Tried { address: address.clone(), why }),
        }
        self.in_round += 1;
    }

    /// The deadline has come: what is known?
    fn into_error(self, call: &'static str, repeat: Repeat) -> Error {
        match (repeat, self.lost, self.refused) {
            (Repeat::Idempotent | Repeat::Never, Some(why), _) => Error::Unknown { call, why, idempotency_key: None },
            (_, None, Some((retry_after, message))) => Error::Refused { retry_after, message },
            _ => Error::Unavailable { after: self.began.elapsed(), tried: self.tried },
        }
    }
}

impl Client {
    /// Makes a call until it succeeds, fails for good, or `patience` is over.
    ///
    /// Dropping the future gives the call up; what was sent may still happen.
    pub(crate) async fn call<T, F, Fut>(
        &self,
        name: &'static str,
        repeat: Repeat,
        patience: Duration,
        send: F,
    ) -> Result<T, Error>
    where
        F: Fn(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let began = Instant::now();
        let deadline = began + patience;
        let options = self.options();
        let mut backoff = Backoff::new(options.backoff, options.backoff_max);
        let mut tries = Tries { began, tried: Vec::new(), lost: None, refused: None, in_round: 0 };
        loop {
            let address = self.targets().current();
            let mut pause = Duration::ZERO;
            match self.targets().channel(&address, options, deadline).await {
                Err(why) => {
                    self.targets().failed(&address);
                    tries.note(&address, why);
                }
                Ok(channel) => {
                    self.discover(&channel).await;
                    let try_deadline = deadline.min(Instant::now() + options.try_timeout);
                    let verdict = match timeout_at(try_deadline, send(channel)).await {
                        Ok(Ok(answer)) => {
                            self.targets().succeeded(&address);
                            return Ok(answer);
                        }
                        Ok(Err(status)) => judge(&status),
                        Err(_) => Verdict::Lost(format!("no answer within {:?}", options.try_timeout.min(patience))),
                    };
                    match verdict {
                        Verdict::Final(error) => return Err(error),
                        Verdict::NotSent(why) => {
                            self.targets().failed(&address);
                            tries.note(&address, why);
                        }
                        Verdict::Lost(why) => {
                            self.targets().failed(&address);
                            if repeat == Repeat::Never {
                                let why = format!("{address}: {why}");
                                return Err(Error::Unknown { call: name, why, idempotency_key: None });
                            }
                            tries.lost = Some(format!("{address}: {why}"));
                            tries.note(&address, why);
                        }
                        // The connection is good; another scheduler may have room.
                        Verdict::Refused { retry_after, message } => {
                            self.targets().skip(&address);
                            pause = retry_after.unwrap_or_default();
                            tries.note(&address, format!("too busy: {message}"));
                            tries.refused = Some((retry_after, message));
                        }
                    }
                }
            }
            if tries.in_round >= self.targets().len() {
                tries.in_round = 0;
                pause = pause.max(backoff.next());
            } else {
                pause = Duration::ZERO;
            }
            // A pause that would end after the deadline only makes the person wait for the same answer.
            if Instant::now() + pause >= deadline {
                return Err(tries.into_error(name, repeat));
            }
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_final_only_where_another_try_would_get_the_same() {
        let verdict =
            |code| format!("{:?}", judge(&Status::new(code, "m"))).split(['(', ' ']).next().map(str::to_owned);
        for code in [Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition, Code::Internal, Code::DataLoss] {
            assert_eq!(verdict(code).as_deref(), Some("Final"), "{code:?}");
        }
        for code in [Code::Unavailable, Code::Unknown, Code::DeadlineExceeded, Code::Aborted, Code::Cancelled] {
            assert_eq!(verdict(code).as_deref(), Some("Lost"), "{code:?}");
        }
        assert_eq!(verdict(Code::ResourceExhausted).as_deref(), Some("Refused"));
    }

    #[test]
    fn a_connection_that_ended_in_the_middle_of_a_call_is_not_the_schedulers_fault() {
        let mut status = Status::new(Code::Internal, "h2 protocol error: http2 error");
        status.set_source(std::sync::Arc::new(std::io::Error::other("the other side goes away")));
        assert!(matches!(judge(&status), Verdict::Lost(_)));
    }

    #[test]
    fn a_refusal_carries_its_delay_but_never_more_than_the_limit() {
        let delay = |text: &'static str| {
            let mut status = Status::resource_exhausted("queue");
            status.metadata_mut().insert(PUSHBACK, text.parse().expect("ASCII"));
            retry_after(&status)
        };
        assert_eq!(delay("250"), Some(Duration::from_millis(250)));
        assert_eq!(delay("99999999"), Some(PUSHBACK_MAX));
        assert_eq!(delay("-1"), None);
        assert_eq!(retry_after(&Status::resource_exhausted("queue")), None);
    }
}
