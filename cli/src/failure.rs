//! Why a command did not do what it was asked to, for people: what went wrong, where, and what to do.

use std::io;
use std::time::Duration;

use muster_client::Error;

use crate::exit::Exit;

/// A command's failure. It is printed once, by `main`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What went wrong, and where. Empty: everything has been said already.
    pub(crate) message: String,
    /// What to do.
    pub(crate) help: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), help: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Exit::Internal, message)
    }

    /// For a command that has printed what there is to say.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// Of a call about a group: where something else helps than with a job, that is said.
    pub(crate) fn about_group(error: Error) -> Self {
        let help = match &error {
            Error::NotFound(_) => {
                "`muster groups create PATH --parents` makes a group with all that are missing around it"
            }
            Error::AlreadyExists(_) => "`muster group PATH` shows how it was made",
            Error::Unknown { idempotency_key: None, .. } => "do it again: twice is the same as once",
            _ => return error.into(),
        };
        Self::from(error).help(help)
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (exit, help) = match &error {
            Error::NotFound(_) => {
                (Exit::NotFound, Some("`muster jobs` lists the jobs, `muster job ID` the stages of one".to_owned()))
            }
            Error::AlreadyExists(_) => (
                Exit::Conflict,
                Some("choose another --idempotency-key, or submit the very spec that the key was used with".to_owned()),
            ),
            Error::InvalidArgument(_) => (Exit::Usage, None),
            Error::Precondition(_) => (Exit::Conflict, None),
            Error::Denied(_) => (Exit::Refused, None),
            Error::Refused { retry_after, .. } => (Exit::Refused, Some(come_back(*retry_after))),
            Error::Unavailable { .. } => (
                Exit::Unreachable,
                Some(
                    "start a cluster on this machine with `muster up`, or name one with --schedulers host:port,… \
                     or MUSTER_SCHEDULERS"
                        .to_owned(),
                ),
            ),
            Error::Unknown { idempotency_key: Some(key), .. } => (
                Exit::Unknown,
                Some(format!(
                    "submit it again with --idempotency-key {key}: that makes one job, whatever happened before"
                )),
            ),
            Error::Unknown { .. } => {
                (Exit::Unknown, Some("look at the job with `muster job ID` before you repeat it".to_owned()))
            }
            Error::Unsupported(_) => (Exit::Internal, Some("upgrade the cluster's schedulers".to_owned())),
            Error::DataLoss(_) | Error::Internal(_) => (Exit::Internal, None),
            Error::BadAddress(_) | Error::NoAddress => (Exit::Usage, None),
            Error::File { .. } => (Exit::Failed, None),
        };
        Self { exit, message, help }
    }
}

fn come_back(retry_after: Option<Duration>) -> String {
    match retry_after {
        Some(delay) => format!("try again in {} s", delay.as_secs().max(1)),
        None => "try again later".to_owned(),
    }
}

/// Of writing to standard output, which is the only input or output that is not wrapped where it happens.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::silent(Exit::BrokenPipe),
            _ => Self::new(Exit::Failed, format!("the output could not be written: {error}")),
        }
    }
}
