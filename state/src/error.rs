//! What can go wrong with a store. A variant exists because a caller branches on it.

/// An operation of a store did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It may have happened, now or later. Settled by sending the identical transaction again, never by a read.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// It did not happen, and may work when tried again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The revision asked for has been compacted away; list again from a newer one.
    #[error("revision {asked} is compacted; the oldest one left is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: u64,
        /// The oldest revision that can still be read or watched.
        oldest: u64,
    },
    /// The session is over: its lease is gone.
    #[error("the session is lost")]
    SessionLost,
    /// A limit would be exceeded; refused before it was sent.
    #[error("{what} is {size}, more than {limit_name} = {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: usize,
        /// The limit's name.
        limit_name: &'static str,
        /// Its value.
        limit: usize,
    },
    /// The store is full and takes no more writes until space is made.
    #[error("the store is full: {0}")]
    NoSpace(String),
    /// A stored record cannot be read: damaged, of another kind, or written by a newer version.
    #[error("record {key} cannot be read: {why}")]
    Record {
        /// Where it is.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bad use, or a fault of the store that trying again does not mend.
    #[error("{0}")]
    Fatal(String),
}

impl Error {
    /// Whether the same call may work when tried again. True of `Unknown` only for calls that are idempotent.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Unavailable(_))
    }
}
