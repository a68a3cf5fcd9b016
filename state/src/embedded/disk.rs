//! The core's versions in a redb database.
//!
//! Versions are keyed by (revision, place in the revision), so a commit appends. `head` and `oldest` are written with
//! them, in the same commit.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::mvcc::{Core, FIRST_REVISION, Shared, Version, Written};
use crate::{Error, Keyspace, Revision, SessionId};

const VERSIONS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("versions");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");

const FORMAT: &str = "format";
const HEAD: &str = "head";
const OLDEST: &str = "oldest";
const CLUSTER: &str = "cluster";
/// The layout that this program writes and reads.
const FORMAT_VERSION: u64 = 1;
/// The file in the directory.
pub(super) const FILE: &str = "state.redb";

/// An open database.
#[derive(Debug)]
pub(super) struct Disk {
    directory: PathBuf,
    database: Database,
    /// The newest revision that is on the disk.
    written: Revision,
}

impl Disk {
    /// Opens or makes it, and reads everything.
    pub(super) fn open(directory: &Path, cluster: &str) -> Result<(Self, Core), Error> {
        let shown = directory.display();
        std::fs::create_dir_all(directory)
            .map_err(|error| Error::Fatal(format!("the directory {shown} cannot be made: {error}")))?;
        let database = Database::create(directory.join(FILE)).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Error::Fatal(format!(
                "the directory {shown} is in use by another process: stop that one first, or give another directory"
            )),
            other => Error::Fatal(format!("the store in {shown} cannot be opened: {other}")),
        })?;
        let mut disk = Self { directory: directory.to_owned(), database, written: FIRST_REVISION };
        disk.claim(cluster)?;
        let core = disk.load().map_err(|error| disk.failed(&error))??;
        disk.written = core.visible();
        Ok((disk, core))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A new store takes the cluster's name; an old one must have it already.
    fn claim(&self, cluster: &str) -> Result<(), Error> {
        let claimed = || -> Result<Option<(u64, String)>, redb::Error> {
            let write = self.database.begin_write()?;
            let old = {
                let mut names = write.open_table(NAMES)?;
                let mut numbers = write.open_table(NUMBERS)?;
                write.open_table(VERSIONS)?;
                let format = numbers.get(FORMAT)?.map(|found| found.value());
                match format {
                    Some(format) => {
                        let name = names.get(CLUSTER)?.map(|found| found.value().to_owned());
                        Some((format, name.unwrap_or_default()))
                    }
                    None => {
                        numbers.insert(FORMAT, FORMAT_VERSION)?;
                        names.insert(CLUSTER, cluster)?;
                        None
                    }
                }
            };
            write.commit()?;
            Ok(old)
        };
        let shown = self.directory.display();
        match claimed().map_err(|error| self.failed(&error))? {
            None => Ok(()),
            Some((format, _)) if format != FORMAT_VERSION => Err(Error::Fatal(format!(
                "the store in {shown} has format {format}, and this program reads {FORMAT_VERSION}: use the version of the \
                 program that wrote it"
            ))),
            Some((_, name)) if name != cluster => Err(Error::Fatal(format!(
                "the store in {shown} belongs to cluster '{name}', not '{cluster}': give that name or another directory"
            ))),
            Some(_) => Ok(()),
        }
    }

    fn load(&self) -> Result<Result<Core, Error>, redb::Error> {
        let read = self.database.begin_read()?;
        let numbers = read.open_table(NUMBERS)?;
        let number = |name: &str, or: u64| -> Result<u64, redb::Error> {
            Ok(numbers.get(name)?.map_or(or, |found| found.value()))
        };
        let mut core = Core::new();
        core.set_bounds(number(OLDEST, FIRST_REVISION + 1)?, number(HEAD, FIRST_REVISION)?);
        for item in read.open_table(VERSIONS)?.iter()? {
            let (key, value) = item?;
            let (revision, place) = key.value();
            let Some((keyspace, name, version)) = decode(revision, place, value.value()) else {
                let key = format!("{revision}.{place} of {}", self.directory.display());
                return Ok(Err(Error::Record { key, why: "it is damaged, or a newer version wrote it".to_owned() }));
            };
            core.restore(keyspace, &name, version);
        }
        Ok(core
            .finish_restore()
            .map(|()| core)
            .map_err(|why| Error::Record { key: self.directory.display().to_string(), why }))
    }

    /// Writes what is in the core and not on the disk yet.
    pub(super) fn write_unpublished(&mut self, shared: &Shared) -> Result<(), Error> {
        self.write(shared, &[])
    }

    /// Writes what is in the core and not on the disk yet, and removes what a compaction forgot. One fsync; none if
    /// there is nothing to do.
    pub(super) fn write(&mut self, shared: &Shared, forgotten: &[(Revision, u32)]) -> Result<(), Error> {
        let (head, oldest, records) = {
            let core = shared.core();
            let mut records = Vec::new();
            for revision in self.written + 1..=core.head() {
                records.extend(
                    core.written(revision)
                        .map(|(written, version)| ((revision, version.place), encode(written, version))),
                );
            }
            (core.head(), core.oldest(), records)
        };
        if records.is_empty() && forgotten.is_empty() {
            return Ok(());
        }
        let commit = || -> Result<(), redb::Error> {
            let write = self.database.begin_write()?;
            {
                let mut versions = write.open_table(VERSIONS)?;
                for (key, record) in &records {
                    versions.insert(key, record.as_slice())?;
                }
                for key in forgotten {
                    versions.remove(key)?;
                }
                let mut numbers = write.open_table(NUMBERS)?;
                numbers.insert(HEAD, head)?;
                numbers.insert(OLDEST, oldest)?;
            }
            // Durability::Immediate is redb's default: this returns after the fsync.
            write.commit()?;
            Ok(())
        };
        commit().map_err(|error| self.failed(&error))?;
        self.written = head;
        Ok(())
    }

    fn failed(&self, error: &redb::Error) -> Error {
        let shown = self.directory.display();
        match error {
            redb::Error::Io(io) if io.kind() == std::io::ErrorKind::StorageFull => {
                Error::NoSpace(format!("no space is left for {shown}: make room, then restart"))
            }
            other => Error::Fatal(format!("the store in {shown} failed: {other}; check the disk, then restart")),
        }
    }
}

const LAYOUT: u8 = 1;
const HAS_VALUE: u8 = 1;
const HAS_SESSION: u8 = 2;

/// Layout, flags, create revision, then keyspace, name and session with their lengths, and the value to the end.
fn encode(written: &Written, version: &Version) -> Vec<u8> {
    let value = version.value.as_deref().unwrap_or_default();
    let mut out = Vec::with_capacity(64 + written.name.len() + value.len());
    let flags = if version.value.is_some() { HAS_VALUE } else { 0 };
    out.extend([LAYOUT, flags | if version.session.is_some() { HAS_SESSION } else { 0 }]);
    out.extend(version.create_revision.to_le_bytes());
    push_text(&mut out, written.keyspace.name());
    push_text(&mut out, &written.name);
    if let Some(id) = &version.session {
        push_text(&mut out, &id.0);
    }
    out.extend_from_slice(value);
    out
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).expect("names are at most NAME_BYTES_MAX long").to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn decode(revision: Revision, place: u32, stored: &[u8]) -> Option<(Keyspace, String, Version)> {
    let (&[layout, flags], rest) = stored.split_first_chunk::<2>()?;
    if layout != LAYOUT || flags & !(HAS_VALUE | HAS_SESSION) != 0 {
        return None;
    }
    let (create_revision, rest) = rest.split_first_chunk::<8>()?;
    let (keyspace, rest) = take_text(rest)?;
    let keyspace = Keyspace::ALL.into_iter().find(|known| known.name() == keyspace)?;
    let (name, rest) = take_text(rest)?;
    let (session, value) = if flags & HAS_SESSION == 0 {
        (None, rest)
    } else {
        let (id, rest) = take_text(rest)?;
        (Some(SessionId(id.to_owned())), rest)
    };
    let value = (flags & HAS_VALUE != 0).then(|| bytes::Bytes::copy_from_slice(value));
    let create_revision = u64::from_le_bytes(*create_revision);
    Some((keyspace, name.to_owned(), Version { create_revision, revision, place, value, session }))
}

fn take_text(stored: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = stored.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn versions_come_back_and_damage_never_panics(
            name in "[a-z/]{1,40}", value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..99)),
            session in proptest::option::of("[a-z]{1,9}"), cut in any::<prop::sample::Index>(), noise in any::<u8>(),
        ) {
            let version = Version {
                create_revision: 3,
                revision: 9,
                place: 4,
                value: value.map(bytes::Bytes::from),
                session: session.map(SessionId),
            };
            let stored = encode(&Written { keyspace: Keyspace::Locks, name: Arc::from(name.as_str()) }, &version);
            let (keyspace, back, restored) = decode(9, 4, &stored).expect("just written");
            prop_assert_eq!((keyspace, back), (Keyspace::Locks, name));
            prop_assert_eq!(format!("{restored:?}"), format!("{version:?}"));
            let cut = cut.index(stored.len());
            let _ = decode(9, 4, &stored[..cut]);
            let mut damaged = stored;
            damaged[cut] = noise;
            let _ = decode(9, 4, &damaged);
        }
    }
}
