//! Makes the output of an attempt that ended well visible. Blocking: run it where that is allowed.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use muster_proto::v1;

use super::manifest::{Entry, Manifest};
use super::{EXECUTE_BITS, LINK_BITS, link_stays_inside};
use crate::store::layout::Room;

/// Files in one output. More than this belongs into an archive file.
pub(crate) const FILES_MAX: usize = 200_000;
/// Directories below each other.
const DEPTH_MAX: usize = 64;

/// Why an output cannot be published.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unpublishable {
    /// The task left something that cannot be passed on.
    #[error("{0}")]
    Task(String),
    /// The machine failed.
    #[error("cannot publish the output: {0}")]
    Machine(#[from] io::Error),
}

/// Describes and publishes what lies in the output directory. Without files nothing is made.
pub(crate) fn publish(output: &Path, room: &Room) -> Result<v1::Output, Unpublishable> {
    let mut entries = Vec::new();
    walk(output, "", 0, &mut entries)?;
    if entries.is_empty() {
        return Ok(v1::Output::default());
    }
    let manifest = Manifest::new(entries);
    fs::create_dir_all(room.path())?;
    fs::rename(output, room.published())?;
    manifest.write(&room.manifest())?;
    Ok(manifest.summary())
}

fn walk(directory: &Path, prefix: &str, depth: usize, entries: &mut Vec<Entry>) -> Result<(), Unpublishable> {
    let wrong = |what: String| Err(Unpublishable::Task(what));
    if depth > DEPTH_MAX {
        return wrong(format!("the output's directory {prefix} is nested more than {DEPTH_MAX} levels deep"));
    }
    let children = match fs::read_dir(directory) {
        Ok(children) => children,
        // The task removed its output directory: it left nothing.
        Err(error) if depth == 0 && error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for child in children {
        let child = child?;
        let name = child.file_name();
        let Some(name) = name.to_str() else {
            let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
            return wrong(format!("the output holds a file whose name is not UTF-8: {prefix}{name}; rename it"));
        };
        let path = format!("{prefix}{name}");
        if entries.len() >= FILES_MAX {
            return wrong(format!("the output holds more than {FILES_MAX} files; pack them into an archive"));
        }
        let metadata = child.metadata()?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            walk(&child.path(), &format!("{path}/"), depth + 1, entries)?;
        } else if kind.is_symlink() {
            let target = fs::read_link(child.path())?;
            let Some(target) = target.to_str().filter(|target| link_stays_inside(&path, target)) else {
                return wrong(format!(
                    "the output's symbolic link {path} leads to {}, out of the output; write a relative link to \
                     something in MUSTER_OUTPUT_DIR, or copy the file",
                    target.display()
                ));
            };
            let hash = *blake3::hash(target.as_bytes()).as_bytes();
            entries.push(Entry { path, mode: LINK_BITS, bytes: target.len() as u64, hash });
        } else if kind.is_file() {
            entries.push(describe(&child.path(), path, metadata.permissions().mode())?);
        } else {
            return wrong(format!(
                "the output holds {path}, which is neither a file, a directory nor a symbolic link; remove it"
            ));
        }
    }
    Ok(())
}

fn describe(file: &PathBuf, path: String, mode: u32) -> io::Result<Entry> {
    let mode = mode & EXECUTE_BITS;
    // Read-only, and readable by those who serve it, whatever the task's umask was.
    fs::set_permissions(file, Permissions::from_mode(0o444 | mode))?;
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(file)?)?;
    Ok(Entry { path, mode, bytes: hasher.count(), hash: *hasher.finalize().as_bytes() })
}
