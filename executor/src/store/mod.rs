//! What the executor keeps on its own disk: fences, results not yet committed, its own record, where files lie, and directories
//! for tasks to run in.

pub(crate) mod fences;
pub(crate) mod journal;
pub(crate) mod keyed_log;
pub(crate) mod layout;
pub(crate) mod outbox;
pub(crate) mod workspaces;
