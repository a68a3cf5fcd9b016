//! Who decides. A scheduler owns jobs, places their tasks on executors, commits every step to the store before acting on
//! it, and takes over the jobs of peers that died. Several identical ones share one store.
//!
//! [`engine`] decides, purely; [`shell`] performs; `services` translate; everything true is in the store.

pub mod engine;
pub mod placement;

mod absence;
mod accept;
mod after;
mod balance;
mod blocking;
mod claims;
mod committer;
mod definitions;
mod demand;
mod draining;
mod executor_records;
pub mod fairness;
mod faults;
mod groups;
mod handover;
mod isolation;
mod janitor;
mod links;
mod load;
mod membership;
mod metered;
mod metrics;
pub mod options;
mod ownership;
mod peers;
mod persist;
mod prepare;
mod requests;
mod safety;
mod scheduler;
mod schedules;
mod self_fencing;
mod services;
mod shared;
mod shell;
mod singleton;
mod steady;
mod store_health;
mod store_watch;
mod unreachable;
mod updates;
mod usage;
mod ways;

pub use groups::callbacks::CallbackSecret;
pub use options::Options;
pub use scheduler::{Error, Handle, Scheduler};
pub use ways::Way;
