//! Who decides. A scheduler owns jobs, places their tasks on executors, commits every step to the store before acting on
//! it, and takes over the jobs of peers that died. Several identical ones share one store.
//!
//! [`engine`] decides, purely; [`shell`] performs; `services` translate; everything true is in the store.

pub mod engine;
pub mod placement;

mod accept;
mod blocking;
mod committer;
mod compaction;
mod demand;
mod faults;
mod links;
mod load;
mod membership;
pub mod options;
mod ownership;
mod peers;
mod persist;
mod scheduler;
mod services;
mod shared;
mod shell;

pub use options::Options;
pub use scheduler::{Error, Handle, Scheduler};
