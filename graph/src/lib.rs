//! The rules of Muster: what a job is, and how it moves.
//!
//! Everything here is pure: no I/O, no clock, no randomness, no async, no locks. Time comes in with the events, jitter
//! is derived from ids. That is what lets the same code run under a simulation, inside a property test and in
//! production.
//!
//! The way through: text is read into a [`spec::JobSpec`], which is compiled into a [`plan::Plan`], which an
//! [`execution::ExecutionGraph`] walks by `apply(event) -> effects`.

pub mod execution;
pub mod groups;
pub mod ids;
pub mod plan;
pub mod schedule;
pub mod spec;
