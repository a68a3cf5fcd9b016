//! The client of a Muster cluster.
//!
//! A [`Client`] knows several schedulers and needs just one of them alive: it learns the others' addresses from the
//! first that answers, goes on to the next one when a call fails, and backs off with jitter when all fail. Every call
//! has a deadline over all of its tries.
//!
//! **What is repeated.** A call is sent again only where that cannot do harm, and an outcome that is not known is never
//! reported as a failure:
//!
//! | call | after "certainly not sent" or "refused" | after an unknown outcome |
//! |---|---|---|
//! | reads | again | again |
//! | submit | again | again: it always carries an idempotency key, so two tries make one job |
//! | cancel, of a job or a group | again | again: cancelling twice is cancelling once |
//! | create a group | again | again: the same group twice is one group |
//! | retry | again | **not**: the first try may have run the failed tasks again, and they may have failed again; [`Error::Unknown`] says so |
//!
//! **Streams resume.** [`Watch`] and [`GroupWatch`] subscribe again and leave out what they have already told; [`Log`] goes
//! on from the last byte received, of the same attempt; a download starts again from nothing and becomes visible only
//! when whole.

mod address;
mod admin;
mod backoff;
mod call;
mod checksum;
mod client;
mod definitions;
mod error;
mod explain;
#[cfg(feature = "fake")]
pub mod fake;
mod groups;
mod log;
mod options;
mod output;
mod resumed;
mod schedules;
mod submission;
mod targets;
mod updates;
mod watch;

pub use address::{Address, BadAddress};
pub use client::{Client, TaskFilter};
pub use error::{Error, Tried};
pub use groups::{GroupWatch, is_complete};
pub use log::{Log, LogRequest, LogStream};
pub use muster_graph::ids::JobId;
pub use muster_proto::v1;
pub use options::Options;
pub use output::{Download, OutputPart, OutputReader};
pub use submission::{Submitted, idempotency_key};
pub use watch::{Watch, is_finished};
