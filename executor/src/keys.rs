//! Names of attempts and proofs of ownership, validated once where they come in.
//!
//! Everything here is small and `Copy`: a job id parsed into its number cannot hold a path, so nothing that arrives
//! from another machine can reach outside the data directory.

use muster_graph::ids::JobId;
use muster_proto::v1;

/// One attempt of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The job.
    pub job: JobId,
    /// Position of the stage in the job's plan.
    pub stage: u32,
    /// Position of the task in the stage.
    pub index: u32,
    /// The attempt's number, from 1.
    pub attempt: u32,
}

/// A reference to an attempt that makes no sense.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BadReference {
    #[error("the field `attempt` is missing")]
    Missing,
    #[error("field job_id: {0}")]
    Job(#[from] muster_graph::ids::NotAJobId),
}

impl AttemptKey {
    /// As it stands in a message; `job_id` may be left out where `job` is known from around it.
    pub(crate) fn from_wire(wire: &v1::AttemptRef, job: Option<JobId>) -> Result<Self, BadReference> {
        let job = match job {
            Some(job) if wire.job_id.is_empty() => job,
            _ => wire.job_id.parse()?,
        };
        Ok(Self { job, stage: wire.stage, index: wire.index, attempt: wire.attempt })
    }

    /// For a message.
    pub(crate) fn to_wire(self) -> v1::AttemptRef {
        v1::AttemptRef { job_id: self.job.to_string(), stage: self.stage, index: self.index, attempt: self.attempt }
    }
}

impl std::fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}#{}", self.job, self.stage, self.index, self.attempt)
    }
}

/// Proof of ownership of a job; a higher one is a newer owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Fence {
    /// The life of the cluster's store.
    pub(crate) epoch: u64,
    /// The revision that made the owner.
    pub(crate) token: u64,
}

impl Fence {
    /// A missing fence is the lowest of all.
    pub(crate) fn from_wire(wire: Option<&v1::Fence>) -> Self {
        wire.map_or_else(Self::default, |fence| Self { epoch: fence.epoch, token: fence.token })
    }
}

impl std::fmt::Display for Fence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.epoch, self.token)
    }
}
