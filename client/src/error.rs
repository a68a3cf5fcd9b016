//! What can go wrong with a call. A variant exists because a caller branches on it.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::{Address, BadAddress};

/// A try of a call that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// Which scheduler.
    pub address: Address,
    /// What happened the last time it was tried.
    pub why: String,
}

/// A call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such job, stage, task, attempt or output.
    #[error("{0}")]
    NotFound(String),
    /// The idempotency key belongs to another job.
    #[error("{0}")]
    AlreadyExists(String),
    /// The request is wrong, and stays so.
    #[error("{0}")]
    InvalidArgument(String),
    /// The state of things does not allow it now, for instance retrying a job that runs.
    #[error("{0}")]
    Precondition(String),
    /// The cluster does not allow it.
    #[error("{0}")]
    Denied(String),
    /// The cluster is too busy, has said so, and still said so when the deadline came. It did not happen.
    #[error("the cluster is too busy: {message}")]
    Refused {
        /// When to come back, if it said so.
        retry_after: Option<Duration>,
        /// Which limit was reached.
        message: String,
    },
    /// No scheduler could be reached. It did not happen, or it was a read.
    #[error("no scheduler answered within {after:.1?}{}", list(tried))]
    Unavailable {
        /// How long it was tried.
        after: Duration,
        /// Each address tried, with what happened there last.
        tried: Vec<Tried>,
    },
    /// It may have happened, or may still happen.
    #[error("it is not known whether the {call} happened: {why}")]
    Unknown {
        /// Which call.
        call: &'static str,
        /// What happened.
        why: String,
        /// Of a submit: repeating it with this key, whenever, gives the job that it made, or makes it.
        idempotency_key: Option<String>,
    },
    /// The scheduler is older than this client and does not know the call.
    #[error("the scheduler does not know this call: {0}")]
    Unsupported(String),
    /// What arrived is not what was sent, or does not exist any more.
    #[error("{0}")]
    DataLoss(String),
    /// A scheduler's own fault.
    #[error("a fault in the scheduler: {0}")]
    Internal(String),
    /// An address that is none.
    #[error(transparent)]
    BadAddress(#[from] BadAddress),
    /// No address was given.
    #[error("no scheduler's address is given")]
    NoAddress,
    /// A file of this machine could not be written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// One line for each address.
fn list(tried: &[Tried]) -> String {
    let mut text = String::new();
    for Tried { address, why } in tried {
        write!(text, "\n  {address}: {why}").expect("writing to a string cannot fail");
    }
    text
}
