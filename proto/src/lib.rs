//! The wire of Muster: generated messages and services, and the conversions between them and the types of
//! [`muster_graph`].
//!
//! Conversions happen here, at the edge, and nowhere else: what leaves this crate towards the inside is validated.

pub mod blob;
pub mod convert;
pub mod network;
mod stored_plan;

/// Messages and services of version 1 of the API.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated from proto/muster/v1, which has the documentation"
)]
pub mod v1 {
    tonic::include_proto!("muster.v1");
}

/// Records that are stored.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated from proto/muster/storage.proto")]
pub mod storage {
    tonic::include_proto!("muster.storage");
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Largest message that any of our services takes or gives: a bunch of statuses or items, never a whole job.
pub const MESSAGE_BYTES_MAX: usize = 4 << 20;
