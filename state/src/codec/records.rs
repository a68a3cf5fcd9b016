//! Each record's payload. Heads and registrations are protobuf; states, commits and events are bincode of the graph's types.

use bincode::Options as _;
use muster_graph::execution::{Delta, JobEvent};
use muster_graph::ids::Millis;
use muster_proto::v1::stage_spec::Work;
use muster_proto::{storage, v1};
use prost::Message as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::envelope::{
    AFTER_JOBS_FROM_VERSION, FIRST_VERSION, GROUP_HEADS_FROM_VERSION, GROUPS_FROM_VERSION, MAX_RUNNING_FROM_VERSION,
    NESTED_FROM_VERSION, PLACEMENT_FROM_VERSION,
};
use super::{Kind, RECORD_BYTES_MAX, Record};

/// One commit of a job, in JobDeltas: resulting states, never inputs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// Whose commit it is; after an unknown outcome the owner recognises its own by it.
    pub id: String,
    /// The owner's token.
    pub token: u64,
    /// When, by the owner's clock.
    pub at: Millis,
    /// What changed.
    pub delta: Delta,
}

/// A part of a job's packed state, in JobStages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// The sequence of the newest commit that is contained.
    pub folded_to: u64,
    /// Current values of the part.
    pub delta: Delta,
}

/// What packed states cannot tell, in JobEvents; with the same sequence as the commit that brought it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// When, by the owner's clock.
    pub at: Millis,
    /// In the order in which the graph emitted them.
    pub events: Vec<JobEvent>,
}

/// The life of a cluster's store. Rises on restore from a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch(pub u64);

/// bincode's options: fixed for ever, since they are part of the format.
fn options() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_varint_encoding()
        .with_little_endian()
        .with_limit(RECORD_BYTES_MAX as u64)
        .reject_trailing_bytes()
}

fn to_bincode(value: &impl Serialize) -> Result<Vec<u8>, String> {
    options().serialize(value).map_err(|error| error.to_string())
}

fn from_bincode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    options().deserialize(payload).map_err(|error| error.to_string())
}

macro_rules! bincode_record {
    ($($record:ty => $kind:ident),+ $(,)?) => {$(
        impl Record for $record {
            const KIND: Kind = Kind::$kind;

            fn to_payload(&self) -> Result<Vec<u8>, String> {
                to_bincode(self)
            }

            fn from_payload(_version: u8, payload: &[u8]) -> Result<Self, String> {
                from_bincode(payload)
            }
        }
    )+};
}

macro_rules! protobuf_record {
    ($($record:ty => $kind:ident $(, written as $version:expr)?);+ $(;)?) => {$(
        impl Record for $record {
            const KIND: Kind = Kind::$kind;

            $(fn version(&self) -> u8 {
                $version(self)
            })?

            fn to_payload(&self) -> Result<Vec<u8>, String> {
                Ok(self.encode_to_vec())
            }

            fn from_payload(_version: u8, payload: &[u8]) -> Result<Self, String> {
                Self::decode(payload).map_err(|error| error.to_string())
            }
        }
    )+};
}

// All versions of these records have one layout so far; another one branches on `version` in `from_payload`.
bincode_record! { Delta => Delta, Commit => Commit, Bucket => Bucket, Events => Events, Epoch => Epoch }
protobuf_record! {
    storage::JobHead => JobHead, written as head_version;
    storage::SchedulerRecord => Scheduler;
    storage::ExecutorRecord => Executor;
    storage::OwnerRecord => Owner;
    storage::IdempotencyRecord => Idempotency;
    storage::StoredSpec => JobSpec, written as spec_version;
    storage::StoredPlan => JobPlan, written as plan_version;
    storage::CancelMark => CancelMark;
    storage::SafeModeRecord => SafeMode;
    storage::JanitorRecord => Janitor;
    storage::NamespaceRecord => Namespace;
    storage::UsageRecord => Usage;
    storage::DefinitionRecord => Definition;
    storage::DefinitionRevision => DefinitionRevision;
    storage::DefinitionContent => DefinitionContent;
    storage::ScheduleRecord => Schedule;
    storage::GroupRecord => Group;
    storage::GroupPath => GroupPath;
    storage::GroupCancelRecord => GroupCancel;
    storage::GroupCancelsHead => GroupCancelsHead;
    storage::GroupChange => GroupChange;
    storage::GroupSums => GroupSums;
    storage::GroupAuditRecord => GroupAudit;
    storage::CallbackRecord => Callback;
    storage::UpdateRecord => Update;
    storage::UpdatePart => UpdatePart;
}

fn head_version(head: &storage::JobHead) -> u8 {
    if head.group.is_empty() { FIRST_VERSION } else { GROUP_HEADS_FROM_VERSION }
}

fn spec_version(stored: &storage::StoredSpec) -> u8 {
    let Some(spec) = &stored.spec else { return FIRST_VERSION };
    if !spec.after_jobs.is_empty() {
        return AFTER_JOBS_FROM_VERSION;
    }
    if !spec.group.is_empty() {
        return GROUPS_FROM_VERSION;
    }
    let is_plain_stage =
        |stage: &v1::StageSpec| is_plain(&stage.name) && matches!(stage.work, None | Some(Work::Process(_)));
    if spec.stages.is_empty() || !is_plain(&spec.name) || !spec.stages.iter().all(is_plain_stage) {
        return NESTED_FROM_VERSION;
    }
    version_with(spec.placement.is_some() || spec.stages.iter().any(|s| s.placement.is_some()), spec.max_running)
}

/// A name as it had to be before any was allowed that can be shown.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn plan_version(plan: &storage::StoredPlan) -> u8 {
    if plan.stages.iter().any(|stage| stage.gate != 0) {
        return NESTED_FROM_VERSION;
    }
    version_with(
        plan.placement.is_some() || plan.stages.iter().any(|stage| stage.placement.is_some()),
        plan.max_running,
    )
}

fn version_with(placement: bool, max_running: Option<u32>) -> u8 {
    match (placement, max_running) {
        (_, Some(_)) => MAX_RUNNING_FROM_VERSION,
        (true, None) => PLACEMENT_FROM_VERSION,
        (false, None) => FIRST_VERSION,
    }
}
