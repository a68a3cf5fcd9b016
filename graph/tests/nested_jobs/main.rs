//! Jobs inside jobs: what a spec becomes, and how the outcome moves. One example a rule, and a random test against a simple
//! model.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod borders;
mod bounds;
mod cancelling;
mod job;
mod random;
mod shapes;

use job::{Defined, Job, expanded, refused};
