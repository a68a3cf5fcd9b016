//! Groups of jobs: a tree in each namespace, whose groups tell what all jobs in them do, and are cancelled as a whole.
//!
//! What they mean is decided here, where they are kept is the scheduler's business. A group is called by its [`GroupPath`]. What
//! its jobs did is a [`Tally`], which changes by what each transaction of a job says of it, a [`Change`]: whoever adds changes up adds
//! each one to the job's group and to every group around it ([`GroupPath::outwards`]), so each of these counts the job once. [`Cancels`]
//! knows which groups of a namespace were cancelled.
//!
//! # The rules
//!
//! - The root is always there. Any other group lies in exactly one, and at most [`GROUP_DEPTH_MAX`] levels below the root.
//! - A group is **complete** while every job in it, and in the groups in it, is over; so one without jobs is, and it is successful. A
//!   new job opens it again, and so does one that is active again; and with it every group around it. Each time that the last job ends
//!   is a completion, which whoever adds up sees once ([`Sums::add`]).
//! - What it **shows** is failure over cancelled over running over success ([`shown`]): a job that failed is told of while others run.
//! - A **cancel** is of one group, stays for ever, and strikes all that is in it. Nothing is marked but that group: not those around it, nor
//!   those beside it, nor, for themselves, those in it. So it does not matter in which order a group and one in it are cancelled,
//!   and the same again changes nothing: the first word stands.
//! - Counts are derived. A recount that finds another number says by how much ([`Tally::correction`]), and that is added like any other
//!   change, to that group alone.
//! - A group may cancel itself once so many of its jobs have failed, those of the groups in it too ([`has_failed_enough`]).

mod cancels;
mod path;
mod recount;
mod tally;

pub use cancels::{Cancel, Cancels};
pub use path::{GROUP_DEPTH_MAX, GROUP_NAME_CHARS_MAX, GroupPath, GroupPathError};
pub use recount::Correction;
pub use tally::{Change, ChangeKind, GroupState, JobEnd, Spent, Sums, Tally, TaskTally, has_failed_enough, shown};
