//! A spec, compiled: names resolved to positions, durations to milliseconds, defaults filled in. Immutable.
//!
//! A plan holds what *deciding* needs and nothing of what *running* needs: argv, scripts, environment and items are in
//! content-addressed blobs that only executors read; here is just their digest.

use serde::{Deserialize, Serialize};

use crate::ids::StageIndex;
use crate::spec::{Resources, Retries, When};

/// A compiled job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order of the spec.
    pub stages: Vec<StagePlan>,
    /// Of the whole job, from its first assignment; `None`: none.
    pub timeout_ms: Option<u64>,
    /// See [`crate::spec::JobSpec::lost_after`].
    pub lost_after_ms: Option<u64>,
    /// Higher goes first inside a namespace.
    pub priority: i32,
}

/// A compiled stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StagePlan {
    /// Unique in the job.
    pub name: String,
    /// How many tasks; may be 0: such a stage is successful as soon as its conditions hold.
    pub tasks: u32,
    /// What it waits for, each stage once.
    pub upstreams: Vec<Upstream>,
    /// Who waits for it; the reverse of `upstreams`.
    pub downstreams: Vec<StageIndex>,
    /// On which outcome of its upstreams it runs.
    pub when: When,
    /// Of one task.
    pub resources: Resources,
    /// Budgets and backoff.
    pub retries: Retries,
    /// See [`crate::spec::StageSpec::deterministic`].
    pub deterministic: bool,
    /// See [`crate::spec::StageSpec::stop_after`].
    pub stop_after: Option<u32>,
    /// Digest of the blob with everything that running a task needs.
    pub spec_digest: String,
}

/// An edge of the graph, seen from its lower end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The stage above.
    pub stage: StageIndex,
    /// What is read of it.
    pub edge: Edge,
}

/// What is read of an upstream stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Edge {
    /// Every output; waits for the whole stage.
    All,
    /// Task i's output; waits for task i only.
    Each,
    /// Part j of every output; waits for the whole stage.
    Shuffle,
    /// Nothing; waits for the whole stage.
    After,
}
