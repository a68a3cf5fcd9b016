//! The store's past, as it was recorded: every revision that changed something, in order.
//!
//! A history says nothing of what was meant: values are bytes, and what a key's session did when it ended looks like a
//! deletion. Whoever records it vouches that no revision is missing; see [`crate::recorder`].

use bytes::Bytes;
use muster_state::{Keyspace, Revision};

/// One revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which.
    pub revision: Revision,
    /// When the recorder heard of it, in microseconds of the clock that the executors' journals use. Never earlier than
    /// the commit.
    pub at_us: u64,
    /// In the order in which the store tells them.
    pub changes: Vec<Change>,
}

/// One key in one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The region.
    pub keyspace: Keyspace,
    /// The name inside it.
    pub name: String,
    /// `None`: deleted, or its session ended.
    pub value: Option<Bytes>,
}

impl Change {
    /// A value was written.
    #[must_use]
    pub fn put(key: muster_state::Key, value: Bytes) -> Self {
        Self { keyspace: key.keyspace, name: key.name, value: Some(value) }
    }

    /// A key went.
    #[must_use]
    pub fn deleted(key: muster_state::Key) -> Self {
        Self { keyspace: key.keyspace, name: key.name, value: None }
    }
}
