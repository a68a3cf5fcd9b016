//! One stream of a task, from its pipe to its file, up to a cap.
//!
//! The file is made when the first byte arrives: most short tasks print nothing. Above the cap, and when the disk is
//! full, bytes are read and dropped, so that the task is never blocked by its own chatter; an empty file beside the log
//! marks that.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Read at once; more waits for the next turn, so that one chatty task does not starve the others.
const READ_BYTES: usize = 64 << 10;
/// A pipe holds at most this much by default in Linux; after a task's end so much at most is waiting.
const DRAIN_READS_MAX: usize = 32;

/// Name of the mark that a log was cut.
pub(crate) const TRUNCATED_SUFFIX: &str = ".truncated";

pub(super) struct LogFile {
    pub(super) pipe: OwnedFd,
    path: PathBuf,
    file: Option<File>,
    room: u64,
    truncated: bool,
}

/// What a read found.
#[derive(PartialEq, Eq)]
pub(super) enum Found {
    Data,
    NothingNow,
    End,
}

impl LogFile {
    pub(super) fn new(pipe: OwnedFd, path: PathBuf, cap_bytes: u64) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        Ok(Self { pipe, path, file: None, room: cap_bytes, truncated: false })
    }

    /// Reads once.
    pub(super) fn pump(&mut self, buffer: &mut Vec<u8>) -> Found {
        buffer.resize(READ_BYTES, 0);
        loop {
            match rustix::io::read(&self.pipe, &mut buffer[..]) {
                Ok(0) => return Found::End,
                Ok(length) => {
                    self.keep(&buffer[..length]);
                    return Found::Data;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Found::NothingNow,
                Err(_) => return Found::End,
            }
        }
    }

    /// Reads what is left after the end of the task.
    pub(super) fn drain(&mut self, buffer: &mut Vec<u8>) {
        for _ in 0..DRAIN_READS_MAX {
            if self.pump(buffer) != Found::Data {
                return;
            }
        }
    }

    fn keep(&mut self, data: &[u8]) {
        let fits = data.len().min(usize::try_from(self.room).unwrap_or(usize::MAX));
        let mut cut = fits < data.len();
        if fits > 0 {
            let written = match &mut self.file {
                Some(file) => file.write_all(&data[..fits]),
                None => create(&self.path).and_then(|file| self.file.insert(file).write_all(&data[..fits])),
            };
            match written {
                Ok(()) => self.room -= fits as u64,
                Err(_) => {
                    // Nowhere to put it: from here on the log is cut.
                    self.room = 0;
                    cut = true;
                }
            }
        }
        if cut && !self.truncated {
            self.truncated = true;
            let mut mark = self.path.clone().into_os_string();
            mark.push(TRUNCATED_SUFFIX);
            // On a full disk the mark cannot be made either; the log is short then, and unmarked.
            let _ = File::create(mark);
        }
    }
}

/// Most attempts that print nothing have no directory.
fn create(path: &Path) -> std::io::Result<File> {
    match (File::create(path), path.parent()) {
        (Err(error), Some(directory)) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(directory)?;
            File::create(path)
        }
        (created, _) => created,
    }
}
