//! The named regions of the store.

/// A region of the store. Keys inside it never show its prefix, and a key of one never appears in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// `epoch`: the life of the cluster's store; `safe-mode`, while it is in doubt; `janitor`: what that did last.
    Meta,
    /// session id → scheduler; leased.
    Schedulers,
    /// session id → unmet demand; leased.
    Demand,
    /// session id → what the jobs of each namespace have and want there; leased.
    Usage,
    /// namespace → its weight and limits.
    Namespaces,
    /// executor id → registration.
    Executors,
    /// job id → head.
    ActiveJobs,
    /// job id → head of a job that is submitted with others, and is not a scheduler's yet.
    StagedJobs,
    /// job id → head of a successful job.
    CompletedJobs,
    /// job id → head of a failed or cancelled job.
    FailedJobs,
    /// job id → owner. Its mod revision is the token.
    JobOwners,
    /// job id/digest → immutable blob (spec, plan, stage specs, items).
    JobPlans,
    /// job id/part → packed states.
    JobStages,
    /// job id/sequence → one commit's changes.
    JobDeltas,
    /// job id/sequence → what packed states cannot tell.
    JobEvents,
    /// job id/request id → a request whose owner could not be reached.
    JobRequests,
    /// `n/`namespace/name → what it stands for; `r/`, `c/`: revisions and their texts.
    Definitions,
    /// namespace/name → a schedule and how far it is.
    Schedules,
    /// `g/`namespace/path → a group of jobs; `i/`: where one is found by its id; `c/`: that one was cancelled; `h/`: the newest of these;
    /// `m/`: which jobs are in one.
    Groups,
    /// `e/`namespace/job/… → what a transaction changes for a job's groups; `s/`namespace/path: what was added up.
    GroupCounts,
    /// namespace/path/completion → what the group's callback is to be told.
    Outbox,
    /// `u/`namespace/token → groups and jobs that come into being together; `p/`: what is staged of them.
    Updates,
    /// namespace/idempotency key → job id and digest.
    Idempotency,
    /// name → lock holder; leased.
    Locks,
}

impl Keyspace {
    /// All of them.
    pub const ALL: [Self; 24] = [
        Self::Meta,
        Self::Schedulers,
        Self::Demand,
        Self::Usage,
        Self::Namespaces,
        Self::Executors,
        Self::ActiveJobs,
        Self::StagedJobs,
        Self::CompletedJobs,
        Self::FailedJobs,
        Self::JobOwners,
        Self::JobPlans,
        Self::JobStages,
        Self::JobDeltas,
        Self::JobEvents,
        Self::JobRequests,
        Self::Definitions,
        Self::Schedules,
        Self::Groups,
        Self::GroupCounts,
        Self::Outbox,
        Self::Updates,
        Self::Idempotency,
        Self::Locks,
    ];

    /// Its name in stored keys: `/muster/<cluster>/<name>/<key>`. Never changed once released.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Schedulers => "schedulers",
            Self::Demand => "demand",
            Self::Usage => "usage",
            Self::Namespaces => "namespaces",
            Self::Executors => "executors",
            Self::ActiveJobs => "active",
            Self::StagedJobs => "staged",
            Self::CompletedJobs => "completed",
            Self::FailedJobs => "failed",
            Self::JobOwners => "owners",
            Self::JobPlans => "plans",
            Self::JobStages => "stages",
            Self::JobDeltas => "deltas",
            Self::JobEvents => "events",
            Self::JobRequests => "requests",
            Self::Definitions => "definitions",
            Self::Schedules => "schedules",
            Self::Groups => "groups",
            Self::GroupCounts => "group-counts",
            Self::Outbox => "outbox",
            Self::Updates => "updates",
            Self::Idempotency => "idempotency",
            Self::Locks => "locks",
        }
    }
}
