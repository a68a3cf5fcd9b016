//! Content-addressed blobs: everything immutable about a job that is too large, or too rarely needed, for its head.
//!
//! A blob's name is the blake3 of its content, in hex. Whoever reads one checks it, so a blob can come from any
//! scheduler, any cache and any store: what is wrong is found out before it is used.

use std::collections::BTreeMap;

use muster_graph::spec;
use prost::Message as _;

use crate::{storage, v1};

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

/// Cuts items so that every chunk but the last holds the same number of them and none is over [`ITEM_CHUNK_BYTES`]
/// (but for a single item that is). Answers how many a chunk holds.
#[must_use]
pub fn item_blobs(values: &[String]) -> (u32, Vec<Blob>) {
    let longest = values.iter().map(|value| value.len() + 4).max().unwrap_or(1);
    let per_chunk = (ITEM_CHUNK_BYTES / longest).clamp(1, ITEM_CHUNK_ITEMS);
    let blobs =
        values.chunks(per_chunk).map(|chunk| Blob::of(v1::Items { values: chunk.to_vec() }.encode_to_vec())).collect();
    (u32::try_from(per_chunk).expect("at most ITEM_CHUNK_ITEMS"), blobs)
}

/// Takes a spec apart for storing: the spec with its items counted, and the items as blobs.
#[must_use]
pub fn take_apart(mut job: spec::JobSpec) -> (storage::StoredSpec, Vec<Blob>) {
    let mut blobs = Vec::new();
    let mut items = Vec::new();
    for (place, stage) in job.stages.iter_mut().enumerate() {
        let count = stage.tasks.count();
        if let spec::Tasks::Items(values) = std::mem::replace(&mut stage.tasks, spec::Tasks::Count(count)) {
            let (items_per_chunk, chunks) = item_blobs(&values);
            items.push(storage::StageItems {
                stage: u32::try_from(place).expect("specs are checked for their number of stages"),
                items_per_chunk,
                chunks: chunks.iter().map(|blob| blob.digest.clone()).collect(),
            });
            blobs.extend(chunks);
        }
    }
    (storage::StoredSpec { spec: Some((&job).into()), items }, blobs)
}

/// What running a task of each stage needs, gates left out. `job` is a stored spec's, expanded and items counted. Stages
/// that differ only by the nested job that they are in have equal works.
///
/// Linear in the size of the job.
pub fn stage_works<'a>(
    job: &'a spec::JobSpec,
    items: &'a [storage::StageItems],
) -> impl Iterator<Item = v1::StageWork> + 'a {
    let mut shuffle_parts: BTreeMap<&str, u32> = BTreeMap::new();
    for reader in &job.stages {
        for input in reader.inputs.iter().filter(|input| input.kind == spec::InputKind::Shuffle) {
            shuffle_parts.insert(&input.stage, reader.tasks.count());
        }
    }
    let items: BTreeMap<u32, &storage::StageItems> = items.iter().map(|items| (items.stage, items)).collect();
    job.stages.iter().zip(0u32..).filter_map(move |(stage, place)| {
        let spec::Work::Process(run) = &stage.work else { return None };
        let items = items.get(&place);
        let mut env = job.env.clone();
        env.extend(stage.env.iter().map(|(key, value)| (key.clone(), value.clone())));
        let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        Some(v1::StageWork {
            job_name: job.name.clone(),
            stage_name: spec::path::own_name(&stage.name).into_owned(),
            work: Some(v1::stage_work::Work::Process(run.into())),
            env,
            task_count: stage.tasks.count(),
            timeout_ms: stage.timeout.map_or(0, millis),
            grace_ms: millis(stage.grace),
            shuffle_parts: shuffle_parts.get(stage.name.as_str()).copied().unwrap_or(0),
            items_per_chunk: items.map_or(0, |items| items.items_per_chunk),
            item_chunks: items.map_or_else(Vec::new, |items| items.chunks.clone()),
        })
    })
}
