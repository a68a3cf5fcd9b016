//! The state of one job, and the only way to move it: `apply(event) -> effects`.

mod delta;
mod event;
mod state;

pub use delta::*;
pub use event::*;
pub use state::*;
