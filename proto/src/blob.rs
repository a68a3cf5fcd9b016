//! Content-addressed blobs: everything immutable about a job that is too large, or too rarely needed, for its head.
//!
//! A blob's name is the blake3 of its content, in hex. Whoever reads one checks it, so a blob can come from any
//! scheduler, any cache and any store: what is wrong is found out before it is used.

use muster_graph::spec;
use prost::Message as _;

use crate::v1;

/// Items of a stage are cut into blobs of at most this many bytes of text, well under the store's 256 KiB a value.
pub const ITEM_CHUNK_BYTES: usize = 64 << 10;
/// And of at most this many items, so that the chunk of a task is found by division.
pub const ITEM_CHUNK_ITEMS: usize = 1024;
/// Plans and specs are cut into pieces of this size.
pub const PIECE_BYTES: usize = 192 << 10;

/// A blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// blake3 of the content, in hex.
    pub digest: String,
    /// The content.
    pub content: Vec<u8>,
}

impl Blob {
    /// Names a content.
    #[must_use]
    pub fn of(content: Vec<u8>) -> Self {
        Self { digest: digest(&content), content }
    }
}

/// The name of a content.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

/// The blobs of one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageBlobs {
    /// The [`v1::StageWork`]: its digest goes into launches.
    pub work: Blob,
    /// The items, cut.
    pub items: Vec<Blob>,
}

/// Makes the blobs of stage `stage` of a checked spec.
#[must_use]
pub fn stage_blobs(job: &spec::JobSpec, stage: usize) -> StageBlobs {
    let described = &job.stages[stage];
    let spec::Work::Process(run) = &described.work;
    let (items_per_chunk, items) = match &described.tasks {
        spec::Tasks::Count(_) => (0, Vec::new()),
        spec::Tasks::Items(values) => item_blobs(values),
    };
    let mut env = job.env.clone();
    env.extend(described.env.iter().map(|(key, value)| (key.clone(), value.clone())));
    let shuffle_parts = job
        .stages
        .iter()
        .filter(|reader| {
            reader.inputs.iter().any(|input| input.stage == described.name && input.kind == spec::InputKind::Shuffle)
        })
        .map(|reader| reader.tasks.count())
        .max()
        .unwrap_or(0);
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let work = v1::StageWork {
        job_name: job.name.clone(),
        stage_name: described.name.clone(),
        work: Some(v1::stage_work::Work::Process(run.into())),
        env,
        task_count: described.tasks.count(),
        timeout_ms: described.timeout.map_or(0, millis),
        grace_ms: millis(described.grace),
        shuffle_parts,
        items_per_chunk,
        item_chunks: items.iter().map(|blob| blob.digest.clone()).collect(),
    };
    StageBlobs { work: Blob::of(work.encode_to_vec()), items }
}

/// Cuts items so that every chunk but the last holds the same number of them and none is over [`ITEM_CHUNK_BYTES`]
/// (but for a single item that is).
fn item_blobs(values: &[String]) -> (u32, Vec<Blob>) {
    let longest = values.iter().map(|value| value.len() + 4).max().unwrap_or(1);
    let per_chunk = (ITEM_CHUNK_BYTES / longest).clamp(1, ITEM_CHUNK_ITEMS);
    let blobs =
        values.chunks(per_chunk).map(|chunk| Blob::of(v1::Items { values: chunk.to_vec() }.encode_to_vec())).collect();
    (u32::try_from(per_chunk).expect("at most ITEM_CHUNK_ITEMS"), blobs)
}
