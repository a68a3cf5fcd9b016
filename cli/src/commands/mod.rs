//! One verb per file: its arguments, and what it does with them.

pub(crate) mod admin;
pub(crate) mod bench;
pub(crate) mod cancel;
pub(crate) mod completions;
mod daemon;
pub(crate) mod define;
pub(crate) mod definition;
pub(crate) mod definitions;
pub(crate) mod executor;
pub(crate) mod executors;
pub(crate) mod exit_codes;
pub(crate) mod explain;
pub(crate) mod export;
pub(crate) mod group;
pub(crate) mod groups;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod lint;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod namespaces;
pub(crate) mod outputs;
pub(crate) mod rename;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod scheduler;
pub(crate) mod schedulers;
pub(crate) mod schedules;
pub(crate) mod schema;
pub(crate) mod submit;
pub(crate) mod supervise;
pub(crate) mod undefine;
pub(crate) mod up;
pub(crate) mod update;
pub(crate) mod wait;
pub(crate) mod watch;

use muster_client::v1::{GroupState, GroupView, JobState, JobView};

use crate::exit::Exit;

/// What a finished job's state means for the process.
pub(crate) fn exit_of(view: &JobView) -> Exit {
    match view.state() {
        JobState::Successful => Exit::Success,
        JobState::Cancelled => Exit::Cancelled,
        JobState::Failed | JobState::Running | JobState::Queued | JobState::Unspecified => Exit::Failed,
    }
}

/// What a complete group's state means for the process.
pub(crate) fn exit_of_group(view: &GroupView) -> Exit {
    match view.state() {
        GroupState::Successful => Exit::Success,
        GroupState::Cancelled => Exit::Cancelled,
        GroupState::Failed | GroupState::Running | GroupState::Unspecified => Exit::Failed,
    }
}
