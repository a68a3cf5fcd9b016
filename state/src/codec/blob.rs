//! Blobs: immutable content of any kind (a spec, a plan, a stage's spec), named by its digest and cut into pieces that a
//! store takes.
//!
//! A blob is read whole or not at all: every piece says how many there are, and the content must have the digest.

use bytes::Bytes;
use muster_graph::ids::JobId;

use super::{Kind, Record, decode, encode};
use crate::{Error, Key, Keyspace, Op, Scan, StateBackend, keys};

/// The largest content. A plan of a million tasks is a few MiB: items are in blobs of their own.
pub const BLOB_BYTES_MAX: usize = 64 << 20;
/// One piece's share of the compressed content: with its envelope it stays below 256 KiB, and four fit a transaction.
pub const CHUNK_BYTES: usize = 240 << 10;
/// Pieces read at a time: at most 4 MiB in one answer.
const LOAD_PAGE: usize = 16;
/// Written once and read many times, so it may cost more than a commit does.
const ZSTD_LEVEL: i32 = 3;

/// A piece of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its place, from 0.
    pub index: u32,
    /// How many pieces the blob has.
    pub count: u32,
    /// The size of the whole content, uncompressed.
    pub content_bytes: u64,
    /// A piece of the compressed content.
    pub piece: Vec<u8>,
}

const HEADER_BYTES: usize = 16;

impl Record for Chunk {
    const KIND: Kind = Kind::BlobChunk;

    fn to_payload(&self) -> Result<Vec<u8>, String> {
        let mut payload = Vec::with_capacity(HEADER_BYTES + self.piece.len());
        payload.extend(self.index.to_le_bytes());
        payload.extend(self.count.to_le_bytes());
        payload.extend(self.content_bytes.to_le_bytes());
        payload.extend_from_slice(&self.piece);
        Ok(payload)
    }

    fn from_payload(_version: u8, payload: &[u8]) -> Result<Self, String> {
        let short = || "it is shorter than a blob chunk's header".to_owned();
        let (index, rest) = payload.split_first_chunk::<4>().ok_or_else(short)?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (content_bytes, piece) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        Ok(Self {
            index: u32::from_le_bytes(*index),
            count: u32::from_le_bytes(*count),
            content_bytes: u64::from_le_bytes(*content_bytes),
            piece: piece.to_vec(),
        })
    }
}

/// Content, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// BLAKE3 of the content, in hexadecimal.
    pub digest: String,
    /// The pieces, in their order; at least one.
    pub chunks: Vec<Bytes>,
}

/// The name of content.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    blake3::hash(content).to_hex().to_string()
}

impl Blob {
    /// Compresses and cuts.
    pub fn new(content: &[u8]) -> Result<Self, Error> {
        if content.len() > BLOB_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "a blob",
                size: content.len(),
                limit_name: "BLOB_BYTES_MAX",
                limit: BLOB_BYTES_MAX,
            });
        }
        let compressed = zstd::bulk::compress(content, ZSTD_LEVEL)
            .map_err(|error| Error::Fatal(format!("a blob cannot be compressed: {error}")))?;
        let pieces: Vec<&[u8]> = compressed.chunks(CHUNK_BYTES).collect();
        let count = u32::try_from(pieces.len()).expect("BLOB_BYTES_MAX / CHUNK_BYTES is small");
        let chunks = (0..count).zip(pieces).map(|(index, piece)| {
            encode(&Chunk { index, count, content_bytes: content.len() as u64, piece: piece.to_vec() })
        });
        Ok(Self { digest: digest(content), chunks: chunks.collect::<Result<_, _>>()? })
    }

    /// The writes that store it for a job. Four of them fit into one transaction.
    #[must_use]
    pub fn puts(&self, job: JobId) -> Vec<Op> {
        (0..)
            .zip(&self.chunks)
            .map(|(index, chunk)| Op::Put {
                key: keys::blob_chunk(job, &self.digest, index),
                value: chunk.clone(),
                session: None,
            })
            .collect()
    }
}

/// Puts the pieces together again. `Error::Record` names what is missing or damaged.
pub fn join(key: &Key, digest_wanted: &str, chunks: &[Bytes]) -> Result<Vec<u8>, Error> {
    let wrong = |why: String| Error::Record { key: format!("{}/{}", key.keyspace.name(), key.name), why };
    if chunks.is_empty() {
        return Err(wrong("no piece of it is there".to_owned()));
    }
    let mut compressed = Vec::new();
    let mut content_bytes = 0;
    for (place, stored) in (0u32..).zip(chunks) {
        let chunk: Chunk = decode(key, stored)?;
        if chunk.index != place || chunk.count as usize != chunks.len() {
            return Err(wrong(format!(
                "piece {place} of {} says that it is piece {} of {}: one is missing",
                chunks.len(),
                chunk.index,
                chunk.count
            )));
        }
        content_bytes = usize::try_from(chunk.content_bytes).unwrap_or(usize::MAX);
        compressed.extend_from_slice(&chunk.piece);
    }
    if content_bytes > BLOB_BYTES_MAX {
        return Err(wrong(format!(
            "it says that it has {content_bytes} bytes, more than BLOB_BYTES_MAX = {BLOB_BYTES_MAX}"
        )));
    }
    let content = zstd::bulk::decompress(&compressed, content_bytes)
        .map_err(|error| wrong(format!("it does not expand: {error}")))?;
    if digest(&content) != digest_wanted {
        return Err(wrong("its content does not have the digest that it is named by".to_owned()));
    }
    Ok(content)
}

/// Reads a blob of a job. `None`: no piece of it is there.
pub async fn load(backend: &dyn StateBackend, job: JobId, digest: &str) -> Result<Option<Vec<u8>>, Error> {
    let prefix = keys::blob_prefix(job, digest);
    let mut chunks = Vec::new();
    let mut scan = Scan { prefix: prefix.clone(), limit: LOAD_PAGE, ..Scan::default() };
    loop {
        let page = backend.scan(Keyspace::JobPlans, scan.clone()).await?;
        chunks.extend(page.entries.into_iter().map(|entry| entry.value));
        if chunks.len() > BLOB_BYTES_MAX / CHUNK_BYTES + 1 {
            return Err(Error::Record { key: prefix, why: "it has more pieces than the largest blob".to_owned() });
        }
        scan.at = Some(page.revision);
        scan.after = page.next;
        if scan.after.is_none() {
            break;
        }
    }
    if chunks.is_empty() {
        return Ok(None);
    }
    join(&Key::new(Keyspace::JobPlans, prefix), digest, &chunks).map(Some)
}
