//! What the checker decides from, and what a scenario says about itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_graph::ids::JobId;

use super::history::Write;
use crate::journal::Line;

/// Everything that is known.
#[derive(Debug, Default, Clone)]
pub struct Evidence {
    /// The store's past, from its first revision on, in order.
    pub writes: Vec<Write>,
    /// What executors recorded, by their names. Empty: there are no records, and nothing is decided from them. Otherwise
    /// each executor must be here that has an accepted result.
    pub executors: BTreeMap<String, Vec<Line>>,
    /// What clients were told.
    pub clients: Clients,
    /// What the scenario says about itself.
    pub scenario: Scenario,
}

/// What clients were told.
#[derive(Debug, Default, Clone)]
pub struct Clients {
    /// Acknowledged submits.
    pub submitted: Vec<Submitted>,
    /// Acknowledged cancels.
    pub cancelled: Vec<Cancelled>,
    /// Acknowledged cancels of groups, by namespace and path.
    pub groups_cancelled: Vec<(String, String)>,
}

/// An acknowledged submit.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The job that it names.
    pub job: JobId,
    /// The job's namespace.
    pub namespace: String,
    /// The idempotency key; empty: none.
    pub key: String,
    /// Any text that tells one spec from another; equal for equal ones.
    pub spec: String,
    /// When the answer came.
    pub at_us: u64,
}

/// An acknowledged cancel.
#[derive(Debug, Clone)]
pub struct Cancelled {
    /// The job.
    pub job: JobId,
    /// When the answer came.
    pub at_us: u64,
}

/// What the evidence cannot say. The default is a scenario in which nobody promises anything about times.
#[derive(Debug, Default, Clone)]
pub struct Scenario {
    /// All times are of one clock, and no revision's is later than what followed from it (an acknowledgement, a start):
    /// "before" can be decided. Simulations only.
    pub exact_times: bool,
    /// When the observation ended; 0: with the last revision.
    pub ended_at_us: u64,
    /// A job of a session that ended has another owner after so long; none: not decided.
    pub takeover_within: Option<Duration>,
    /// When etcd elected a leader: that renews all leases, and time is counted from there.
    pub elections_us: Vec<u64>,
    /// When executors could not be reached by schedulers or were dead; none: not decided whether losses were declared
    /// rightly.
    pub outages: Option<Outages>,
    /// Executors that were killed: the last lines of their records may be missing.
    pub killed: BTreeSet<String>,
    /// The store was restored, or recovered: the epoch may rise.
    pub epoch_may_rise: bool,
    /// Schedulers of an older version took part, which say less in their records.
    pub older_versions: bool,
}

/// When executors were away, and for how long they may be.
#[derive(Debug, Clone)]
pub struct Outages {
    /// Each time that one was away.
    pub times: Vec<Outage>,
    /// The cluster's limit.
    pub lost_after: Duration,
}

/// An executor was away: dead, stopped, or cut off. All schedulers' being away counts as well.
#[derive(Debug, Clone)]
pub struct Outage {
    /// Which one.
    pub executor: String,
    /// From then on: taken just before the fault.
    pub from_us: u64,
    /// Until then: taken just after the fault's end. None: for ever.
    pub until_us: Option<u64>,
}
