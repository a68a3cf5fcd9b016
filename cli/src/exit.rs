//! What the process's exit code says. Documented in docs/cli.md, which a test compares with this table.

use std::fmt::Write as _;

/// How the program ends. The numbers are part of the interface: none is ever used for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    Failed,
    Usage,
    Cancelled,
    NotFound,
    Unreachable,
    Refused,
    Conflict,
    Unknown,
    Internal,
    TimedOut,
    Interrupted,
    BrokenPipe,
    Terminated,
}

impl Exit {
    pub(crate) const ALL: [Self; 14] = [
        Self::Success,
        Self::Failed,
        Self::Usage,
        Self::Cancelled,
        Self::NotFound,
        Self::Unreachable,
        Self::Refused,
        Self::Conflict,
        Self::Unknown,
        Self::Internal,
        Self::TimedOut,
        Self::Interrupted,
        Self::BrokenPipe,
        Self::Terminated,
    ];

    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Cancelled => 3,
            Self::NotFound => 4,
            Self::Unreachable => 5,
            Self::Refused => 6,
            Self::Conflict => 7,
            Self::Unknown => 8,
            // sysexits.h: EX_SOFTWARE.
            Self::Internal => 70,
            // As timeout(1).
            Self::TimedOut => 124,
            // As a shell reports a process that a signal ended: 128 + its number.
            Self::Interrupted => 130,
            Self::BrokenPipe => 141,
            Self::Terminated => 143,
        }
    }

    /// What it says, in one line.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Self::Success => {
                "it worked; of `run`, `wait`, `watch` and `submit --wait`: the job or group was successful"
            }
            Self::Failed => {
                "the job, or one of the group, failed; of `lint`: there are problems; of a download: it could not be written"
            }
            Self::Usage => "wrong arguments, configuration or spec; nothing was done",
            Self::Cancelled => "the job, or the group, was cancelled",
            Self::NotFound => "there is no such job, group, stage, task, log or output",
            Self::Unreachable => "no scheduler, or no store, could be reached; nothing was done",
            Self::Refused => "the cluster was too busy all the time; nothing was done, try again later",
            Self::Conflict => {
                "it does not fit the present state: an idempotency key in use, nothing to retry, a group that is cancelled"
            }
            Self::Unknown => "it may or may not have happened; the message says how to find out",
            Self::Internal => "a fault in Muster, or output that was damaged on its way",
            Self::TimedOut => "`--timeout` of `wait` was over before the job or group was",
            Self::Interrupted => "interrupted (Ctrl-C, SIGINT)",
            Self::BrokenPipe => "whoever read the output had enough",
            Self::Terminated => "terminated (SIGTERM)",
        }
    }

    /// The table, for `muster help exit-codes`.
    pub(crate) fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            write!(text, "\n{:>5}  {}", exit.code(), exit.meaning()).expect("writing to a string cannot fail");
        }
        text
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_exits_share_a_code_and_the_list_is_sorted() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert!(codes.is_sorted_by(|a, b| a < b), "{codes:?}");
    }
}
