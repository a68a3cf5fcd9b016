//! Where state lives.
//!
//! One trait, [`StateBackend`], over three stores: etcd for clusters, an in-process MVCC core for tests and
//! simulations, and the same core made durable by redb for a single machine. One conformance suite runs on all of them.

mod backend;
mod error;
mod keyspace;

pub use backend::*;
pub use error::Error;
pub use keyspace::Keyspace;
