//! The executor against a fake scheduler, with real processes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod bench;
mod devices;
mod endings;
mod fake;
mod handing_over;
mod launcher;
mod launching;
mod orphans;
mod outputs;
mod pages;
mod reporting;
mod world;
