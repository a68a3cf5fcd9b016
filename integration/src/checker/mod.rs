//! The checker: decides the promises C1 to C6 from evidence alone.
//!
//! The evidence is the store's whole past, revision by revision, the executors' own records of what they ran, and what
//! clients were told. Revisions are a total order, so the decision is a fold: each rule sees each revision once, with the
//! store as it was before and after. A job costs what it wrote, whatever its size.
//!
//! **What can be decided.** Clocks of the store and of executors are not compared: that an attempt was started *after*
//! its assignment was committed is decided only where times are exact (a simulation); elsewhere, that it was assigned at
//! all. Which rules there are, and what each says, is in [`Rule`].
//!
//! **Architecture Invariant:** nothing here asks a scheduler, an executor or the store, and no rule uses the code that it
//! judges: records are decoded by the store's codec, and everything that follows from them is computed again.

mod decode;
mod evidence;
mod excerpt;
mod fold;
mod history;
mod job;
mod rules;
mod store;
#[cfg(test)]
mod tests;
mod verdict;
mod waits;

pub use evidence::{Cancelled, Clients, Evidence, Outage, Outages, Scenario, Submitted};
pub use fold::check;
pub use history::{Change, Write};
pub use verdict::{Rule, Statistics, Takeover, Verdict, Violation, Wait};
