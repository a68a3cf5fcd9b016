//! Streams a published output to whoever reads it. Blocking: it runs on a thread of its own.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;

use bytes::{Bytes, BytesMut};
use muster_proto::v1::{self, OutputChunk, output_chunk::Part};
use tokio::sync::mpsc;
use tonic::Status;

use super::manifest::{Entry, Manifest, checksum, plain_mode};
use crate::store::layout::Room;

/// Data in one message.
const CHUNK_BYTES: usize = 256 << 10;

/// Sends the entries, one top-level entry or all, and at the end the checksum over what was sent.
pub(crate) fn send(room: &Room, part: Option<u32>, chunks: &mpsc::Sender<Result<OutputChunk, Status>>) {
    let result = match Manifest::read(&room.manifest()) {
        Ok(manifest) => send_entries(room, &manifest, part, chunks),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Some(Status::not_found("this executor has no output of this attempt")))
        }
        Err(error) => Err(Some(Status::data_loss(format!("the output's manifest cannot be read: {error}")))),
    };
    if let Err(Some(status)) = result {
        // The reader may have gone; then nobody wants to know.
        let _ = chunks.blocking_send(Err(status));
    }
}

/// `Err(None)`: the reader is gone.
fn send_entries(
    room: &Room,
    manifest: &Manifest,
    part: Option<u32>,
    chunks: &mpsc::Sender<Result<OutputChunk, Status>>,
) -> Result<(), Option<Status>> {
    let put = |part: Part| chunks.blocking_send(Ok(OutputChunk { part: Some(part) })).map_err(|_| None);
    let wanted: Vec<&Entry> =
        manifest.entries.iter().filter(|entry| part.is_none_or(|part| entry.is_of_part(part))).collect();
    for entry in &wanted {
        let lost = |why: String| Some(Status::data_loss(format!("{}: {why}", entry.path)));
        put(Part::File(v1::FileStart { path: entry.path.clone(), bytes: entry.bytes, mode: plain_mode(entry.mode) }))?;
        let path = room.published().join(&entry.path);
        if entry.is_link() {
            let target = fs::read_link(&path).map_err(|error| lost(error.to_string()))?;
            put(Part::Data(Bytes::copy_from_slice(target.as_os_str().as_bytes())))?;
            continue;
        }
        let mut file = File::open(&path).map_err(|error| lost(error.to_string()))?;
        let mut left = entry.bytes;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let mut data = BytesMut::zeroed(length);
            file.read_exact(&mut data).map_err(|error| lost(format!("shorter than published: {error}")))?;
            put(Part::Data(data.freeze()))?;
            left -= length as u64;
        }
    }
    put(Part::End(v1::OutputEnd { checksum: checksum(wanted) }))
}
