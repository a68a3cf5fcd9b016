//! Between the messages of the wire and the types of the rules. What comes from the wire is checked here: a message
//! that lacks what its type needs becomes an [`Invalid`] that names the field.

mod attempts;
mod nested;
mod placement;
mod spec;

pub use attempts::{
    attempt_end, attempt_ref, executor_key, exit, refusal_name, refusal_reasons, to_attempt_ref, to_exit,
};
pub use nested::{argument, gate, to_argument};
pub use placement::{placement, to_placement};
pub use spec::after_jobs;

use muster_graph::ids::JobId;

/// A message that cannot mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// The field, as a path from the message's root.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl Invalid {
    /// A problem with `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

impl From<Invalid> for tonic::Status {
    fn from(invalid: Invalid) -> Self {
        Self::invalid_argument(invalid.to_string())
    }
}

/// Reads a job id.
pub fn job_id(text: &str) -> Result<JobId, Invalid> {
    text.parse().map_err(|error: muster_graph::ids::NotAJobId| Invalid::new("job_id", error.to_string()))
}
