//! Writes a stream of output chunks to disk, and trusts nothing in it. Blocking.
//!
//! Invariants: only paths below the target directory are written, links are made after all files, so none is ever
//! followed; what was received is accepted only if its checksum is the one that was promised.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use muster_proto::v1::{OutputChunk, output_chunk::Part};

use crate::output::manifest::{Entry, Manifest, checksum};
use crate::output::publish::FILES_MAX;
use crate::output::{EXECUTE_BITS, LINK_BITS, TYPE_BITS, is_plain_path, link_stays_inside};

/// Longest target of a link: Linux's limit of a path.
const LINK_BYTES_MAX: u64 = 4096;

/// Why a stream is not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReceived {
    /// What was sent is not what was promised.
    #[error("{0}")]
    Corrupt(String),
    /// The stream ended before its end.
    #[error("the stream broke off")]
    BrokenOff,
    /// It cannot be written here.
    #[error("cannot write {path}: {source}")]
    Disk { path: PathBuf, source: std::io::Error },
}

struct Open {
    entry: Entry,
    left: u64,
    hasher: blake3::Hasher,
    /// A file, or the target of a link.
    to: To,
}

enum To {
    File(File, PathBuf),
    Link(Vec<u8>),
}

/// Receives one output into a directory.
pub(crate) struct Receiver {
    directory: PathBuf,
    open: Option<Open>,
    entries: Vec<Entry>,
    links: Vec<(String, String)>,
    finished: bool,
    is_kept: bool,
}

/// What was not received to its end leaves nothing.
impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.is_kept {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Receiver {
    /// The directory is made, with its parents, and emptied if something of an earlier life is in it.
    pub(crate) fn empty(directory: PathBuf) -> Result<Self, NotReceived> {
        if let Err(error) = fs::remove_dir_all(&directory)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(disk(&directory)(error));
        }
        fs::create_dir_all(&directory).map_err(disk(&directory))?;
        Ok(Self { directory, open: None, entries: Vec::new(), links: Vec::new(), finished: false, is_kept: false })
    }

    /// Takes the next chunk.
    pub(crate) fn take(&mut self, chunk: OutputChunk) -> Result<(), NotReceived> {
        let corrupt = |what: String| Err(NotReceived::Corrupt(what));
        if self.finished {
            return corrupt("something followed the end".to_owned());
        }
        match chunk.part {
            Some(Part::File(start)) => {
                self.close()?;
                if !is_plain_path(&start.path) {
                    return corrupt(format!("the path {:?} leads out of the output", start.path));
                }
                if self.entries.len() >= FILES_MAX {
                    return corrupt(format!("more than {FILES_MAX} files"));
                }
                let is_link = start.mode & TYPE_BITS == LINK_BITS;
                if is_link && start.bytes > LINK_BYTES_MAX {
                    return corrupt(format!("the link {:?} is too long", start.path));
                }
                let mode = if is_link { LINK_BITS } else { start.mode & EXECUTE_BITS };
                let to = if is_link { To::Link(Vec::new()) } else { self.create(&start.path, mode)? };
                let entry = Entry { path: start.path, mode, bytes: start.bytes, hash: [0; 32] };
                self.open = Some(Open { left: entry.bytes, entry, hasher: blake3::Hasher::new(), to });
                Ok(())
            }
            Some(Part::Data(data)) => {
                let Some(open) = &mut self.open else { return corrupt("data before a file".to_owned()) };
                let Some(left) = open.left.checked_sub(data.len() as u64) else {
                    return corrupt(format!("{:?} is longer than announced", open.entry.path));
                };
                open.left = left;
                open.hasher.update(&data);
                match &mut open.to {
                    To::File(file, path) => file.write_all(&data).map_err(disk(path)),
                    To::Link(target) => {
                        target.extend_from_slice(&data);
                        Ok(())
                    }
                }
            }
            Some(Part::End(end)) => {
                self.close()?;
                let manifest = Manifest::new(std::mem::take(&mut self.entries));
                if checksum(&manifest.entries) != end.checksum {
                    return corrupt("the content does not match its checksum".to_owned());
                }
                self.entries = manifest.entries;
                self.make_links()?;
                self.finished = true;
                Ok(())
            }
            None => corrupt("a chunk of unknown kind".to_owned()),
        }
    }

    /// After the last chunk: what was received.
    pub(crate) fn finish(mut self) -> Result<Manifest, NotReceived> {
        if !self.finished {
            return Err(NotReceived::BrokenOff);
        }
        self.is_kept = true;
        Ok(Manifest { entries: std::mem::take(&mut self.entries) })
    }

    fn create(&self, path: &str, mode: u32) -> Result<To, NotReceived> {
        let path = self.directory.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(disk(parent))?;
        }
        // New, so that nothing that is there can be followed or overwritten.
        let file = File::options().write(true).create_new(true).mode(0o444 | mode).open(&path).map_err(disk(&path))?;
        Ok(To::File(file, path))
    }

    fn close(&mut self) -> Result<(), NotReceived> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let corrupt = |what: String| Err(NotReceived::Corrupt(what));
        if open.left > 0 {
            return corrupt(format!("{:?} is shorter than announced", open.entry.path));
        }
        open.entry.hash = *open.hasher.finalize().as_bytes();
        if let To::Link(target) = open.to {
            match String::from_utf8(target) {
                Ok(target) if link_stays_inside(&open.entry.path, &target) => {
                    self.links.push((open.entry.path.clone(), target));
                }
                _ => return corrupt(format!("the link {:?} leads out of the output", open.entry.path)),
            }
        }
        self.entries.push(open.entry);
        Ok(())
    }

    fn make_links(&self) -> Result<(), NotReceived> {
        for (path, _) in &self.links {
            let path = self.directory.join(path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(disk(parent))?;
            }
        }
        // All directories are made by now: no link can become the parent of anything.
        for (path, target) in &self.links {
            let path = self.directory.join(path);
            std::os::unix::fs::symlink(target, &path).map_err(disk(&path))?;
        }
        Ok(())
    }
}

fn disk(path: &Path) -> impl FnOnce(std::io::Error) -> NotReceived {
    let path = path.to_owned();
    move |source| NotReceived::Disk { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use muster_proto::v1::{FileStart, OutputEnd};

    fn file(path: &str, bytes: u64, mode: u32) -> OutputChunk {
        OutputChunk { part: Some(Part::File(FileStart { path: path.to_owned(), bytes, mode })) }
    }

    fn data(content: &'static [u8]) -> OutputChunk {
        OutputChunk { part: Some(Part::Data(Bytes::from_static(content))) }
    }

    fn end(checksum: u64) -> OutputChunk {
        OutputChunk { part: Some(Part::End(OutputEnd { checksum })) }
    }

    fn receive(chunks: Vec<OutputChunk>) -> (tempfile::TempDir, Result<u64, NotReceived>) {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::empty(dir.path().join("in")).unwrap();
        for chunk in chunks {
            if let Err(error) = receiver.take(chunk) {
                return (dir, Err(error));
            }
        }
        let result = receiver.finish().map(|manifest| manifest.summary().checksum);
        (dir, result)
    }

    fn entry(path: &str, content: &[u8], mode: u32) -> Entry {
        let hash = *blake3::hash(content).as_bytes();
        Entry { path: path.to_owned(), mode, bytes: content.len() as u64, hash }
    }

    #[test]
    fn files_and_links_arrive() {
        let sum = checksum(&[entry("d/x", b"hello", 0o111), entry("l", b"d/x", LINK_BITS)]);
        let chunks =
            vec![file("l", 3, LINK_BITS), data(b"d/x"), file("d/x", 5, 0o111), data(b"he"), data(b"llo"), end(sum)];
        let (dir, result) = receive(chunks);
        assert_eq!(result.unwrap(), sum);
        assert_eq!(fs::read(dir.path().join("in/l")).unwrap(), b"hello");
    }

    #[test]
    fn nothing_hostile_is_written_outside() {
        let hostile = [
            vec![file("../out", 1, 0), data(b"x"), end(0)],
            vec![file("/tmp/out", 1, 0), data(b"x"), end(0)],
            vec![file("l", 2, LINK_BITS), data(b".."), file("l/out", 1, 0), data(b"x"), end(0)],
            vec![file("l", 4, LINK_BITS), data(b"/etc"), end(0)],
            vec![file("a", 1, 0), data(b"xy"), end(0)],
            vec![file("a", 2, 0), data(b"x"), end(0)],
            vec![file("a", 1, 0), data(b"x"), end(12345)],
            vec![data(b"x")],
        ];
        for chunks in hostile {
            let shown = format!("{chunks:?}");
            let (dir, result) = receive(chunks);
            assert!(matches!(result, Err(NotReceived::Corrupt(_))), "{shown}: {result:?}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{shown}");
        }
    }

    #[test]
    fn a_stream_without_its_end_is_not_accepted() {
        let (_dir, result) = receive(vec![file("a", 1, 0), data(b"x")]);
        assert!(matches!(result, Err(NotReceived::BrokenOff)));
    }
}
