//! Streams a published output to whoever reads it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;

use bytes::{Bytes, BytesMut};
use muster_proto::v1::{self, OutputChunk, output_chunk::Part};
use tokio::sync::mpsc;
use tonic::Status;

use super::manifest::{Entry, Manifest, checksum, plain_mode};
use crate::blocking;
use crate::store::layout::Room;

/// Data in one message, and what is read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Parts that are read at a time: small files go together.
const PARTS: usize = 64;

/// Sends the entries, one top-level entry or all, and at the end the checksum over what was sent.
pub(crate) async fn send(room: Room, part: Option<u32>, chunks: mpsc::Sender<Result<OutputChunk, Status>>) {
    let mut reading = blocking::run(move || Reader::open(room, part)).await;
    loop {
        let (parts, reader) = match reading {
            Ok(Ok(read)) => read,
            // The reader may have gone; then nobody wants to know.
            Ok(Err(status)) => return drop(chunks.send(Err(status)).await),
            Err(stopped) => return drop(chunks.send(Err(Status::unavailable(stopped.to_string()))).await),
        };
        for part in parts {
            if chunks.send(Ok(OutputChunk { part: Some(part) })).await.is_err() {
                return;
            }
        }
        let Some(reader) = reader else { return };
        reading = blocking::run(move || reader.read()).await;
    }
}

/// What was read, and who reads on; none: it was the last.
type Read = Result<(Vec<Part>, Option<Reader>), Status>;

/// What is still to be sent. Blocking.
struct Reader {
    room: Room,
    entries: VecDeque<Entry>,
    /// The file that is being read, and how much is left of it.
    open: Option<(String, File, u64)>,
    checksum: u64,
}

impl Reader {
    fn open(room: Room, part: Option<u32>) -> Read {
        let mut manifest = Manifest::read(&room.manifest()).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Status::not_found("this executor has no output of this attempt"),
            _ => Status::data_loss(format!("the output's manifest cannot be read: {error}")),
        })?;
        manifest.entries.retain(|entry| part.is_none_or(|part| entry.is_of_part(part)));
        let checksum = checksum(&manifest.entries);
        Self { room, entries: manifest.entries.into(), open: None, checksum }.read()
    }

    fn read(mut self) -> Read {
        let mut parts = Vec::new();
        let mut bytes = 0;
        while parts.len() < PARTS && bytes < CHUNK_BYTES {
            if let Some((path, mut file, left)) = self.open.take() {
                let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
                let mut data = BytesMut::zeroed(length);
                file.read_exact(&mut data).map_err(|error| lost(&path, &format!("shorter than published: {error}")))?;
                parts.push(Part::Data(data.freeze()));
                bytes += length;
                let left = left - length as u64;
                self.open = (left > 0).then_some((path, file, left));
                continue;
            }
            let Some(entry) = self.entries.pop_front() else {
                parts.push(Part::End(v1::OutputEnd { checksum: self.checksum }));
                return Ok((parts, None));
            };
            let Entry { path, mode, bytes: length, .. } = entry;
            parts.push(Part::File(v1::FileStart { path: path.clone(), bytes: length, mode: plain_mode(mode) }));
            let at = self.room.published().join(&path);
            let gone = |error: std::io::Error| lost(&path, &error.to_string());
            if plain_mode(mode) == super::LINK_BITS {
                let target = fs::read_link(&at).map_err(gone)?;
                parts.push(Part::Data(Bytes::copy_from_slice(target.as_os_str().as_bytes())));
            } else {
                let file = File::open(&at).map_err(gone)?;
                self.open = (length > 0).then_some((path, file, length));
            }
        }
        Ok((parts, Some(self)))
    }
}

fn lost(path: &str, why: &str) -> Status {
    Status::data_loss(format!("{path}: {why}"))
}
