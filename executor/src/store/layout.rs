//! Where files lie in the data directory.
//!
//! ```text
//! executor.lock  executor.id  incarnation  fences.log  outbox.log  journal.jsonl  supervisor.lock
//! blobs/<digest>                                         specs and items, by content
//! workspaces/<number>/work/ output/ script               of tasks that run; see [`super::workspaces`]
//! jobs/<job>/<stage>/<index>.<attempt>/
//!     input/<stage name>/<index>/                        while it runs
//!     stdout  stderr  stdout.truncated  stderr.truncated
//!     published/  manifest                               of a successful attempt that left files
//!     work/ output/                                      of a failed one
//! ```
//!
//! An attempt that leaves nothing has no directory; its job has one in any case. A task's temporary files go to its work directory.
//!
//! Invariant: every component is a number, a checked digest, or the encoding of [`directory_name`], so nothing that
//! arrives from another machine can name a path outside.

use std::path::{Path, PathBuf};

use muster_graph::ids::JobId;

use crate::keys::AttemptKey;

/// Paths under one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn fences(&self) -> PathBuf {
        self.root.join("fences.log")
    }

    pub(crate) fn outbox(&self) -> PathBuf {
        self.root.join("outbox.log")
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.root.join("journal.jsonl")
    }

    pub(crate) fn supervisor_lock(&self) -> PathBuf {
        self.root.join("supervisor.lock")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn jobs(&self) -> PathBuf {
        self.root.join("jobs")
    }

    pub(crate) fn workspaces(&self) -> PathBuf {
        self.root.join("workspaces")
    }

    pub(crate) fn job(&self, job: JobId) -> PathBuf {
        self.jobs().join(job.to_string())
    }

    pub(crate) fn attempt(&self, key: AttemptKey) -> Room {
        Room(self.root.join(format!("jobs/{}/{}/{}.{}", key.job, key.stage, key.index, key.attempt)))
    }
}

/// The directory of one attempt, which need not exist.
#[derive(Debug, Clone)]
pub(crate) struct Room(PathBuf);

impl Room {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where what a failed attempt had in its work directory is kept.
    pub(crate) fn work(&self) -> PathBuf {
        self.0.join("work")
    }

    /// Where what a failed attempt had in its output directory is kept.
    pub(crate) fn output(&self) -> PathBuf {
        self.0.join("output")
    }

    /// Where its output lies once it succeeded.
    pub(crate) fn published(&self) -> PathBuf {
        self.0.join("published")
    }

    pub(crate) fn manifest(&self) -> PathBuf {
        self.0.join("manifest")
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.0.join("input")
    }

    pub(crate) fn stdout(&self) -> PathBuf {
        self.0.join("stdout")
    }

    pub(crate) fn stderr(&self) -> PathBuf {
        self.0.join("stderr")
    }
}

/// Longest encoded name before it is cut; file systems allow 255 bytes.
const NAME_BYTES_MAX: usize = 200;

/// A stage's name as one path component. Letters, digits, `-`, `_` and `.` stand for themselves; every other byte, and
/// a leading dot, becomes `%` and two upper-case hexadecimal digits. A name whose encoding is longer than 200 bytes is
/// cut there and followed by `~` and 16 digits of its BLAKE3 hash. Different names give different components.
pub(crate) fn directory_name(stage: &str) -> String {
    let mut encoded = String::with_capacity(stage.len());
    for (place, byte) in stage.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && place > 0);
        if plain {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    if encoded.is_empty() {
        // An empty name is refused by validation; should one come, it must still not be the parent directory.
        return "%".to_owned();
    }
    if encoded.len() > NAME_BYTES_MAX {
        encoded.truncate(NAME_BYTES_MAX);
        encoded.push('~');
        encoded.push_str(&blake3::hash(stage.as_bytes()).to_hex()[..16]);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn odd_stage_names_are_one_harmless_component() {
        for (name, expected) in [
            ("map", "map"),
            ("a/b/c", "a%2Fb%2Fc"),
            ("..", "%2E."),
            (".", "%2E"),
            ("", "%"),
            ("v1.2", "v1.2"),
            ("100%", "100%25"),
            ("é x", "%C3%A9%20x"),
        ] {
            assert_eq!(directory_name(name), expected);
        }
    }

    proptest! {
        #[test]
        fn every_name_is_a_component_of_its_own(one in ".{0,300}", other in ".{0,300}") {
            let (a, b) = (directory_name(&one), directory_name(&other));
            prop_assert!(a.len() < 255 && !a.contains('/') && a != "." && a != ".." && !a.is_empty());
            prop_assert_eq!(a == b, one == other);
        }
    }
}
