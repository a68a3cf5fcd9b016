//! The envelope: `'M'`, kind, version, flags, payload, CRC-32 of all that (little-endian).
//!
//! With the flag `ZSTD` the payload is a length (four bytes, little-endian) and a zstd frame of that many bytes.

use std::borrow::Cow;

use bytes::Bytes;

const MAGIC: u8 = b'M';
const HEADER_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;
const LENGTH_BYTES: usize = 4;
/// The payload is compressed.
const ZSTD: u8 = 1;
/// Below this, zstd's own framing eats what it could save.
const COMPRESS_FROM_BYTES: usize = 512;
/// Speed matters here more than the last few per cent: it is on the way of every commit.
const ZSTD_LEVEL: i32 = 1;

/// The largest record, uncompressed. A stored value is at most 256 KiB, but buckets of equal tasks compress a
/// hundredfold, and a plan of a hundred thousand stages is cut into pieces; this bounds what a damaged or hostile length
/// can make a reader allocate.
pub const RECORD_BYTES_MAX: usize = 32 << 20;

/// What every kind was written as first.
pub(super) const FIRST_VERSION: u8 = 1;
/// Specs and plans that say where tasks must run: a program that passed that over would run them elsewhere.
pub(super) const PLACEMENT_FROM_VERSION: u8 = 2;
/// Those that limit how many tasks of the job run at the same time.
pub(super) const MAX_RUNNING_FROM_VERSION: u8 = 3;
/// Those of jobs with jobs in them, or with names or without stages as no program allowed before: one that passed gates over would
/// run what must wait.
pub(super) const NESTED_FROM_VERSION: u8 = 4;
/// Specs of jobs in a group: one that passed that over would make them jobs of no group, which count nowhere and go on when it is
/// cancelled.
pub(super) const GROUPS_FROM_VERSION: u8 = 5;
/// Specs of jobs that wait for others: one that passed that over would run them at once.
pub(super) const AFTER_JOBS_FROM_VERSION: u8 = 6;
/// Heads of jobs in a group. One that wrote them without their group would take them out of it.
pub(super) const GROUP_HEADS_FROM_VERSION: u8 = 2;

/// What a record is. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// `storage.JobHead`.
    JobHead = 1,
    /// `storage.SchedulerRecord`.
    Scheduler = 2,
    /// `storage.ExecutorRecord`.
    Executor = 3,
    /// `storage.OwnerRecord`.
    Owner = 4,
    /// `storage.IdempotencyRecord`.
    Idempotency = 5,
    /// A `graph::Delta` by itself: a small job's whole state inside its head.
    Delta = 6,
    /// One commit of a job: see [`super::Commit`].
    Commit = 7,
    /// A part of a job's packed state: see [`super::Bucket`].
    Bucket = 8,
    /// Events of one commit: see [`super::Events`].
    Events = 9,
    /// A piece of a blob: see [`super::blob`].
    BlobChunk = 10,
    /// The life of a cluster's store: see [`super::Epoch`].
    Epoch = 11,
    /// `storage.StoredSpec`.
    JobSpec = 12,
    /// `storage.StoredPlan`.
    JobPlan = 13,
    /// `storage.CancelMark`.
    CancelMark = 14,
    /// `storage.SafeModeRecord`.
    SafeMode = 20,
    /// `storage.JanitorRecord`.
    Janitor = 21,
    /// `storage.NamespaceRecord`.
    Namespace = 22,
    /// `storage.UsageRecord`.
    Usage = 23,
    /// `storage.DefinitionRecord`.
    Definition = 24,
    /// `storage.DefinitionRevision`.
    DefinitionRevision = 25,
    /// `storage.DefinitionContent`.
    DefinitionContent = 26,
    /// `storage.ScheduleRecord`.
    Schedule = 27,
    /// `storage.GroupRecord`.
    Group = 28,
    /// `storage.GroupPath`.
    GroupPath = 29,
    /// `storage.GroupCancelRecord`.
    GroupCancel = 30,
    /// `storage.GroupCancelsHead`.
    GroupCancelsHead = 31,
    /// `storage.GroupChange`.
    GroupChange = 32,
    /// `storage.GroupSums`.
    GroupSums = 33,
    /// `storage.GroupAuditRecord`.
    GroupAudit = 34,
    /// `storage.CallbackRecord`.
    Callback = 35,
    /// `storage.UpdateRecord`.
    Update = 36,
    /// `storage.UpdatePart`.
    UpdatePart = 37,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 32] = [
        Self::JobHead,
        Self::Scheduler,
        Self::Executor,
        Self::Owner,
        Self::Idempotency,
        Self::Delta,
        Self::Commit,
        Self::Bucket,
        Self::Events,
        Self::BlobChunk,
        Self::Epoch,
        Self::JobSpec,
        Self::JobPlan,
        Self::CancelMark,
        Self::SafeMode,
        Self::Janitor,
        Self::Namespace,
        Self::Usage,
        Self::Definition,
        Self::DefinitionRevision,
        Self::DefinitionContent,
        Self::Schedule,
        Self::Group,
        Self::GroupPath,
        Self::GroupCancel,
        Self::GroupCancelsHead,
        Self::GroupChange,
        Self::GroupSums,
        Self::GroupAudit,
        Self::Callback,
        Self::Update,
        Self::UpdatePart,
    ];

    /// For messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::JobHead => "job head",
            Self::Scheduler => "scheduler record",
            Self::Executor => "executor record",
            Self::Owner => "owner record",
            Self::Idempotency => "idempotency record",
            Self::Delta => "job state",
            Self::Commit => "job commit",
            Self::Bucket => "state bucket",
            Self::Events => "event record",
            Self::BlobChunk => "blob chunk",
            Self::Epoch => "epoch record",
            Self::JobSpec => "job spec",
            Self::JobPlan => "job plan",
            Self::CancelMark => "cancel mark",
            Self::SafeMode => "safe mode record",
            Self::Janitor => "janitor record",
            Self::Namespace => "namespace record",
            Self::Usage => "usage record",
            Self::Definition => "definition record",
            Self::DefinitionRevision => "definition revision",
            Self::DefinitionContent => "definition content",
            Self::Schedule => "schedule record",
            Self::Group => "group record",
            Self::GroupPath => "group path",
            Self::GroupCancel => "group cancel",
            Self::GroupCancelsHead => "head of group cancels",
            Self::GroupChange => "group change",
            Self::GroupSums => "group sums",
            Self::GroupAudit => "record of a recount of groups",
            Self::Callback => "callback of a group",
            Self::Update => "update",
            Self::UpdatePart => "part of an update",
        }
    }

    /// The newest version that this program reads.
    #[must_use]
    pub const fn version(self) -> u8 {
        match self {
            Self::JobHead => GROUP_HEADS_FROM_VERSION,
            Self::JobSpec => AFTER_JOBS_FROM_VERSION,
            Self::JobPlan => NESTED_FROM_VERSION,
            _ => FIRST_VERSION,
        }
    }
}

/// What was inside.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    pub(super) version: u8,
    pub(super) payload: Cow<'a, [u8]>,
}

pub(super) fn seal(kind: Kind, version: u8, payload: &[u8]) -> Result<Bytes, String> {
    if payload.len() > RECORD_BYTES_MAX {
        return Err(format!("{} bytes are more than RECORD_BYTES_MAX = {RECORD_BYTES_MAX}", payload.len()));
    }
    let compressed = if payload.len() >= COMPRESS_FROM_BYTES {
        // Failing to compress is no reason not to store: it goes as it is.
        zstd::bulk::compress(payload, ZSTD_LEVEL).ok().filter(|short| short.len() + LENGTH_BYTES < payload.len())
    } else {
        None
    };
    let body = compressed.as_deref().unwrap_or(payload);
    let mut out = Vec::with_capacity(HEADER_BYTES + LENGTH_BYTES + body.len() + CHECKSUM_BYTES);
    out.extend([MAGIC, kind as u8, version, if compressed.is_some() { ZSTD } else { 0 }]);
    if compressed.is_some() {
        let length = u32::try_from(payload.len()).expect("RECORD_BYTES_MAX is below 4 GiB");
        out.extend(length.to_le_bytes());
    }
    out.extend_from_slice(body);
    let checksum = crc32fast::hash(&out);
    out.extend(checksum.to_le_bytes());
    Ok(Bytes::from(out))
}

pub(super) fn open(kind: Kind, stored: &[u8]) -> Result<Opened<'_>, String> {
    let (covered, checksum) =
        stored.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| format!("{} bytes are no record", stored.len()))?;
    let (&[magic, found, version, flags], body) =
        covered.split_first_chunk::<HEADER_BYTES>().ok_or_else(|| format!("{} bytes are no record", stored.len()))?;
    if magic != MAGIC {
        return Err("it does not begin as a record does: something else wrote it".to_owned());
    }
    if crc32fast::hash(covered) != u32::from_le_bytes(*checksum) {
        return Err("its checksum is wrong: it is damaged".to_owned());
    }
    if found != kind as u8 {
        let found = Kind::ALL.into_iter().find(|kind| *kind as u8 == found);
        let found = found.map_or("unknown", Kind::name);
        return Err(format!("its kind is '{found}', expected '{}'", kind.name()));
    }
    if version > kind.version() || flags & !ZSTD != 0 {
        return Err(format!(
            "it has version {version} of kind '{}', and this program reads versions up to {}: upgrade this program",
            kind.name(),
            kind.version()
        ));
    }
    if version == 0 {
        return Err(format!("it has version 0 of kind '{}', which was never written", kind.name()));
    }
    let payload = if flags & ZSTD == 0 { Cow::Borrowed(body) } else { Cow::Owned(expand(body)?) };
    Ok(Opened { version, payload })
}

fn expand(body: &[u8]) -> Result<Vec<u8>, String> {
    let (length, frame) = body.split_first_chunk::<LENGTH_BYTES>().ok_or("its compressed payload has no length")?;
    let length = usize::try_from(u32::from_le_bytes(*length)).expect("at least 32 bits wide");
    if length > RECORD_BYTES_MAX {
        return Err(format!(
            "it says that it expands to {length} bytes, more than RECORD_BYTES_MAX = {RECORD_BYTES_MAX}"
        ));
    }
    let expanded = zstd::bulk::decompress(frame, length).map_err(|error| format!("it does not expand: {error}"))?;
    if expanded.len() != length {
        return Err(format!("it expands to {} bytes instead of {length}", expanded.len()));
    }
    Ok(expanded)
}
