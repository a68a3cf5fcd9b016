//! The executor's side of talking with schedulers: one home scheduler at a time, results on their way, and in pull
//! mode the polls for work.
//!
//! Everything here survives the loss of any scheduler: it goes on with the next one that answers, and what runs is not
//! touched meanwhile.

pub(crate) mod channels;
pub(crate) mod courier;
pub(crate) mod home;
pub(crate) mod poll;
pub(crate) mod session;

use std::time::Duration;

/// Deadline of a call that a scheduler answers when its commit is done.
pub(crate) const COMMIT_WITHIN: Duration = Duration::from_secs(10);
/// Statuses in one message.
pub(crate) const STATUSES_MAX: usize = 2000;
