//! Who runs: an executor offers a machine's resources to the schedulers and runs the tasks they launch.
//!
//! The way of one attempt through this crate: a launch arrives by a stream ([`serve`]) or in the answer to a poll
//! ([`uplink`]); both go through one admission ([`table`]), which is the last word on what runs here. An accepted
//! attempt is in the table before anything is loaded. Its own asynchronous part ([`attempt`]) then loads the stage's
//! work by digest ([`load`]), fetches inputs from other executors ([`load::inputs`]), starts the process through a
//! [`runtime::TaskRuntime`], publishes what it left ([`output`]) and writes the result to the outbox ([`store`]), from
//! where it is sent until a scheduler says that it is committed.
//!
//! **Architecture Invariant:** this crate never touches the cluster's store; only schedulers do.
//!
//! **Architecture Invariant:** a task's process is never a child of this process but of the supervisor
//! ([`supervisor`]), which outlives the executor just long enough to end what it started. So a `kill -9` leaves no
//! orphans.

mod attempt;
mod blocking;
mod clock;
mod control;
mod core;
mod devices;
mod error;
mod executor;
mod faults;
mod group;
mod hand_over;
mod identity;
mod keep;
mod keys;
mod leave;
mod load;
mod metrics;
mod options;
mod output;
mod place;
mod resources;
mod retention;
pub mod runtime;
mod serve;
pub mod simulated;
mod store;
pub mod supervisor;
mod table;
mod tasks;
mod uplink;

pub use devices::DeviceNames;
pub use error::Error;
pub use executor::{Executor, Handle};
pub use options::{Mode, Options};
pub use resources::Resources;

/// Whether this process may make cgroups, so that memory limits of tasks are enforced and running out of memory is
/// known. An executor decides it once, when it starts.
#[must_use]
pub fn memory_limits_are_enforced() -> bool {
    runtime::cgroup::Home::detect(&format!("probe-{}", std::process::id())).is_some_and(|home| {
        home.remove();
        true
    })
}
