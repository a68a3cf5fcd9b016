//! Real faults: schedulers, executors and members of etcd that are killed, stopped and cut off under load. Every
//! scenario asserts that its fault fired, and that afterwards everything that was acknowledged is over, as it must be.
//!
//! The same code runs short in `make test` and long in `make soak` (`MUSTER_SOAK=1`). It needs root, for namespaces of
//! the network; where it cannot have them each scenario says that it was skipped, and fails if `CI` is set.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod etcd;
mod everything;
mod executors;
mod guards;
mod rolling;
mod scenario;
mod schedulers;
mod takeover;
mod upgrade;
