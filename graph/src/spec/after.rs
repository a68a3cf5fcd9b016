//! A job that another one waits for: `ID`, which means its success, or `ID:END`.

use std::fmt;
use std::str::FromStr;

use crate::groups::JobEnd;
use crate::ids::{JobId, NotAJobId};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AfterJob {
    /// Which.
    pub job: JobId,
    /// After which end of it.
    pub end: AwaitedEnd,
}

/// How a job has to end for those that wait for it. If it ends otherwise they are cancelled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AwaitedEnd {
    /// Successfully.
    #[default]
    Success,
    /// Failed, or cancelled.
    Failure,
    /// Somehow.
    Any,
}

/// Why a text is none of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAfterJob {
    /// What stands before the colon.
    #[error(transparent)]
    Job(#[from] NotAJobId),
    /// What stands behind it.
    #[error("`{0}` is no end that can be waited for: write success, failure or any")]
    End(String),
}

impl AwaitedEnd {
    /// Whether a job that ended like that is what was waited for.
    #[must_use]
    pub fn is_met_by(self, end: JobEnd) -> bool {
        match self {
            Self::Success => end == JobEnd::Successful,
            Self::Failure => end != JobEnd::Successful,
            Self::Any => true,
        }
    }
}

impl FromStr for AfterJob {
    type Err = NotAfterJob;

    fn from_str(text: &str) -> Result<Self, NotAfterJob> {
        let (job, end) = text.split_once(':').unwrap_or((text, "success"));
        let end = match end {
            "success" => AwaitedEnd::Success,
            "failure" => AwaitedEnd::Failure,
            "any" => AwaitedEnd::Any,
            other => return Err(NotAfterJob::End(other.chars().take(64).flat_map(char::escape_debug).collect())),
        };
        Ok(Self { job: job.parse()?, end })
    }
}

impl fmt::Display for AfterJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.end {
            AwaitedEnd::Success => write!(f, "{}", self.job),
            AwaitedEnd::Failure => write!(f, "{}:failure", self.job),
            AwaitedEnd::Any => write!(f, "{}:any", self.job),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_waited_for_is_read_as_it_is_written() {
        let job = JobId(7);
        for end in [AwaitedEnd::Success, AwaitedEnd::Failure, AwaitedEnd::Any] {
            let after = AfterJob { job, end };
            assert_eq!(after.to_string().parse(), Ok(after));
        }
        assert_eq!(format!("{job}:success").parse(), Ok(AfterJob { job, end: AwaitedEnd::Success }));
        let wrong = format!("{job}:done").parse::<AfterJob>();
        assert_eq!(wrong, Err(NotAfterJob::End("done".to_owned())));
        assert!(matches!("etl".parse::<AfterJob>(), Err(NotAfterJob::Job(_))));
    }

    #[test]
    fn a_cancelled_job_is_one_that_did_not_succeed() {
        let met = |end: AwaitedEnd| [JobEnd::Successful, JobEnd::Failed, JobEnd::Cancelled].map(|by| end.is_met_by(by));
        assert_eq!(met(AwaitedEnd::Success), [true, false, false]);
        assert_eq!(met(AwaitedEnd::Failure), [false, true, true]);
        assert_eq!(met(AwaitedEnd::Any), [true, true, true]);
    }
}
