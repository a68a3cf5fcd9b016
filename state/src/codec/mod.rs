//! How records are written: an envelope that says what they are, around protobuf or bincode.
//!
//! Invariants:
//! - Kind and version stand outside the payload, and a checksum covers both. A record that is damaged, of another kind or newer than
//!   this program is refused with [`Error::Record`], and never rewritten.
//! - Decoding never panics, and never allocates more than [`RECORD_BYTES_MAX`], whatever the bytes are.
//! - A version that was released is decoded for ever: `state/samples` has one record of each kind and version.

pub mod blob;
mod envelope;
mod records;

pub use envelope::{Kind, RECORD_BYTES_MAX};
pub use records::{Bucket, Commit, Epoch, Events};

use bytes::Bytes;

use crate::{Error, Key};

/// Something that is stored.
pub trait Record: Sized {
    /// What it is, in the envelope.
    const KIND: Kind;

    /// What it is written as: the oldest version that can say what it says, so that older programs go on reading what they
    /// understand.
    fn version(&self) -> u8 {
        envelope::FIRST_VERSION
    }

    /// The payload.
    fn to_payload(&self) -> Result<Vec<u8>, String>;

    /// The payload of version `version`, which is not newer than [`Kind::version`].
    fn from_payload(version: u8, payload: &[u8]) -> Result<Self, String>;
}

/// The stored form of a record. Fails only if the record is larger than [`RECORD_BYTES_MAX`].
pub fn encode<R: Record>(record: &R) -> Result<Bytes, Error> {
    record
        .to_payload()
        .and_then(|payload| envelope::seal(R::KIND, record.version(), &payload))
        .map_err(|why| Error::Fatal(format!("no {} can be encoded from this: {why}", R::KIND.name())))
}

/// The record in a stored value; `key` is for the message.
pub fn decode<R: Record>(key: &Key, stored: &[u8]) -> Result<R, Error> {
    decode_bytes(stored).map_err(|why| Error::Record { key: format!("{}/{}", key.keyspace.name(), key.name), why })
}

/// Like [`decode`], for a record that is not under a key of its own (a job's states inside its head, a file).
pub fn decode_bytes<R: Record>(stored: &[u8]) -> Result<R, String> {
    let opened = envelope::open(R::KIND, stored)?;
    R::from_payload(opened.version, &opened.payload)
}

#[cfg(test)]
mod tests;
