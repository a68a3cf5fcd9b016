//! Where state lives.
//!
//! One trait, [`StateBackend`], over three stores: etcd for clusters, an in-process MVCC core for tests and
//! simulations, and the same core made durable by redb for a single machine. One conformance suite runs on all of them.

mod backend;
pub mod clock;
pub mod codec;
mod embedded;
mod error;
mod etcd;
pub mod faults;
pub mod keys;
mod keyspace;
mod limits;
mod liveness;
mod local_session;
mod lock;
mod memory;
mod moving;
mod mvcc;
mod open;
mod page;
mod status;
#[cfg(feature = "testing")]
pub mod testing;

pub use backend::*;
pub use embedded::{Embedded, WRITE_TIMEOUT};
pub use error::Error;
pub use etcd::{CALL_TIMEOUT, CONNECT_TIMEOUT, Etcd, EtcdOptions};
pub use keyspace::Keyspace;
pub use limits::{CLUSTER_BYTES_MAX, NAME_BYTES_MAX};
pub use liveness::SESSION_TTL_MIN;
pub use memory::Memory;
#[cfg(feature = "testing")]
pub use memory::RevisionOfAll;
pub use open::open;
pub use status::{Alarm, Member, StoreStatus};
