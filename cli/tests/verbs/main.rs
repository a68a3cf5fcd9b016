//! The binary as people and programs meet it, against a scripted cluster.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod configuration;
mod embedded;
mod explain;
mod groups;
mod harness;
mod jobs;
mod logs;
mod offline;
mod run;
mod update;
