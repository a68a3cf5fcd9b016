//! The executor against a fake scheduler, with real processes.

mod bench;
mod endings;
mod fake;
mod launching;
mod orphans;
mod outputs;
mod reporting;
