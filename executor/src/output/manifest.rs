//! The list of an output's files, and the checksum over them.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use muster_proto::v1;
use serde::{Deserialize, Serialize};

use super::{EXECUTE_BITS, LINK_BITS, TYPE_BITS};

/// Kind and version at the head of the file, outside the payload.
const HEADER: &[u8; 8] = b"MUSTMAN1";

/// One file or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Relative, with `/`.
    pub(crate) path: String,
    /// Execute bits of a file; type bits of a link.
    pub(crate) mode: u32,
    /// Length of the content, or of the link's target.
    pub(crate) bytes: u64,
    /// BLAKE3 of the content, or of the link's target.
    pub(crate) hash: [u8; 32],
}

impl Entry {
    /// Whether it is, or is below, the top-level entry of this name.
    pub(crate) fn is_of_part(&self, part: u32) -> bool {
        self.path.split('/').next().is_some_and(|top| top == part.to_string())
    }
}

/// The mode that the checksum and the wire know.
pub(crate) fn plain_mode(mode: u32) -> u32 {
    if mode & TYPE_BITS == LINK_BITS { LINK_BITS } else { mode & EXECUTE_BITS }
}

/// An output's files, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) entries: Vec<Entry>,
}

impl Manifest {
    /// Sorts the entries.
    pub(crate) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Self { entries }
    }

    pub(crate) fn summary(&self) -> v1::Output {
        v1::Output {
            bytes: self.entries.iter().map(|entry| entry.bytes).sum(),
            checksum: checksum(&self.entries),
            files: u32::try_from(self.entries.len()).unwrap_or(u32::MAX),
        }
    }

    /// Whether all its entries are in a directory, of the right size.
    pub(crate) fn has_its_files(&self, directory: &Path) -> bool {
        self.entries.iter().all(|entry| {
            let found = directory.join(&entry.path).symlink_metadata();
            found.is_ok_and(|found| found.is_symlink() || found.len() == entry.bytes)
        })
    }

    /// Writes it so that it is there whole or not at all.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let payload = bincode::serialize(self).map_err(io::Error::other)?;
        let next = path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(HEADER)?;
        file.write_all(&crc32fast::hash(&payload).to_le_bytes())?;
        file.write_all(&payload)?;
        std::fs::rename(&next, path)
    }

    /// `NotFound` if there is none; `InvalidData` if it is damaged.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let content = std::fs::read(path)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the manifest is damaged");
        let rest = content.strip_prefix(HEADER).ok_or_else(damaged)?;
        let (sum, payload) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        if crc32fast::hash(payload) != u32::from_le_bytes(*sum) {
            return Err(damaged());
        }
        bincode::deserialize(payload).map_err(|_| damaged())
    }
}

/// Over sorted entries: the first 8 bytes of BLAKE3 over path, mode, size and content hash of each. 0 for no entries,
/// and only for none.
pub(crate) fn checksum<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut any = false;
    for entry in entries {
        any = true;
        hasher.update(&(entry.path.len() as u64).to_le_bytes());
        hasher.update(entry.path.as_bytes());
        hasher.update(&plain_mode(entry.mode).to_le_bytes());
        hasher.update(&entry.bytes.to_le_bytes());
        hasher.update(&entry.hash);
    }
    if !any {
        return 0;
    }
    let first = hasher.finalize().as_bytes()[..8].try_into().expect("eight of 32 bytes");
    u64::from_le_bytes(first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str) -> Entry {
        Entry { path: path.to_owned(), mode: 0, bytes: 1, hash: [1; 32] }
    }

    #[test]
    fn the_checksum_sees_every_field_and_not_the_order_of_discovery() {
        let base = checksum(&Manifest::new(vec![entry("a"), entry("b")]).entries);
        assert_eq!(base, checksum(&Manifest::new(vec![entry("b"), entry("a")]).entries));
        for other in [
            Entry { path: "c".to_owned(), ..entry("b") },
            Entry { mode: 0o111, ..entry("b") },
            Entry { mode: LINK_BITS, ..entry("b") },
            Entry { bytes: 2, ..entry("b") },
            Entry { hash: [2; 32], ..entry("b") },
        ] {
            assert_ne!(base, checksum(&[entry("a"), other]));
        }
        assert_eq!(base, checksum(&[entry("a"), Entry { mode: 0o644, ..entry("b") }]), "only execute bits count");
        assert_eq!(checksum(&[]), 0);
    }

    #[test]
    fn a_part_is_a_whole_name() {
        assert!(entry("1").is_of_part(1) && entry("1/x").is_of_part(1));
        assert!(!entry("11").is_of_part(1) && !entry("x/1").is_of_part(1) && !entry("01").is_of_part(1));
    }

    #[test]
    fn a_damaged_manifest_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("manifest");
        let manifest = Manifest::new(vec![entry("a")]);
        manifest.write(&path).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), manifest);
        let mut content = std::fs::read(&path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        std::fs::write(&path, content).unwrap();
        assert_eq!(Manifest::read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
