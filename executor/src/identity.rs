//! Who this executor is: a name that outlives it, and an incarnation that rises at each start.
//!
//! Invariant: an incarnation is on disk before anybody hears of it, so no two lives of an executor share one, and a
//! launch that was meant for a former life is known by its number. A lock on the data directory keeps a second
//! executor out for as long as this process lives.
//!
//! A data directory that was lost, or put back from a copy, has forgotten numbers that were in use. Schedulers remember:
//! before it is registered for the first time, and so before it takes anything in, a life may be told to rise above them.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use crate::blocking;
use crate::error::Error;
use crate::options::check_id;

/// This life of this executor.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) id: String,
    /// Of this start alone.
    pub(crate) life: String,
    incarnation: AtomicU64,
    /// Where it is kept.
    incarnation_path: PathBuf,
    /// Whoever writes in the data directory holds it too.
    pub(crate) lock: Arc<File>,
}

impl Identity {
    /// Takes the data directory, and begins a new incarnation.
    pub(crate) fn take(data_dir: &Path, wanted: Option<&str>) -> Result<Self, Error> {
        std::fs::create_dir_all(data_dir).map_err(Error::data_dir("create", data_dir))?;
        let lock_path = data_dir.join("executor.lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(Error::data_dir("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::DataDirInUse(data_dir.to_owned())),
            Err(other) => return Err(Error::data_dir("lock", &lock_path)(other.into())),
        }

        let id_path = data_dir.join("executor.id");
        let kept = read(&id_path)?;
        let id = match (wanted, kept) {
            (Some(wanted), Some(kept)) if kept != wanted => {
                return Err(Error::BadOption {
                    option: "id",
                    problem: format!(
                        "'{wanted}' asked for, but the data directory {} belongs to executor '{kept}'; \
                         leave the id out, or use another data directory",
                        data_dir.display()
                    ),
                });
            }
            (_, Some(kept)) => {
                check_id(&kept)?;
                kept
            }
            (Some(wanted), None) => {
                write_durably(&id_path, wanted)?;
                wanted.to_owned()
            }
            (None, None) => {
                let made = format!("executor-{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff);
                write_durably(&id_path, &made)?;
                made
            }
        };

        let incarnation_path = data_dir.join("incarnation");
        let last = match read(&incarnation_path)? {
            None => 0,
            Some(text) => text.parse::<u64>().map_err(|_| Error::DataDir {
                action: "understand",
                path: incarnation_path.clone(),
                source: std::io::Error::other(format!("'{text}' is not a number; use a new data directory")),
            })?,
        };
        let incarnation = last + 1;
        write_durably(&incarnation_path, &incarnation.to_string())?;
        let life = format!("{:016x}", rand::random::<u64>());
        Ok(Self { id, life, incarnation: AtomicU64::new(incarnation), incarnation_path, lock: Arc::new(lock) })
    }

    /// Which start of it this is.
    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// Goes on under a number above one that was in use before; on disk when this returns. Not once anybody may have heard
    /// of this life.
    pub(crate) async fn rise_above(&self, known: u64) -> Result<(), Error> {
        let next = known.max(self.incarnation()).saturating_add(1);
        let path = self.incarnation_path.clone();
        let closing = |error| Error::data_dir("write", &self.incarnation_path)(std::io::Error::other(error));
        blocking::run(move || write_durably(&path, &next.to_string())).await.map_err(closing)??;
        self.incarnation.store(next, Ordering::Relaxed);
        Ok(())
    }

    /// Gives the data directory free although this still lives. Nothing may be written after it.
    pub(crate) fn release(&self) {
        // Closing the file, at the latest at the process's end, does it otherwise.
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(other) => Err(Error::data_dir("read", path)(other)),
    }
}

/// Writes a small file so that after a crash there is the old one or the new one, never half of one.
fn write_durably(path: &Path, text: &str) -> Result<(), Error> {
    let next = path.with_extension("next");
    let written = (|| {
        let mut file = File::create(&next)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        File::open(path.parent().expect("a file has a directory"))?.sync_all()
    })();
    written.map_err(Error::data_dir("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_executor_is_kept_out_and_each_start_is_a_new_incarnation() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::take(dir.path(), None).unwrap();
        assert_eq!(first.incarnation(), 1);
        let refused = Identity::take(dir.path(), None).unwrap_err();
        assert!(matches!(refused, Error::DataDirInUse(_)), "{refused}");
        let id = first.id.clone();
        drop(first);
        let second = Identity::take(dir.path(), None).unwrap();
        assert_eq!((second.id.as_str(), second.incarnation()), (id.as_str(), 2));
        drop(second);
        let other = Identity::take(dir.path(), Some("other")).unwrap_err();
        assert!(other.to_string().contains("belongs to executor"), "{other}");
        let same = Identity::take(dir.path(), Some(&id)).unwrap();
        assert_eq!(same.incarnation(), 3);
    }

    #[tokio::test]
    async fn a_life_that_rises_above_a_known_number_stays_there() {
        let dir = tempfile::tempdir().unwrap();
        let first = Identity::take(dir.path(), None).unwrap();
        first.rise_above(7).await.unwrap();
        assert_eq!(first.incarnation(), 8);
        let life = first.life.clone();
        drop(first);
        let second = Identity::take(dir.path(), None).unwrap();
        assert_eq!(second.incarnation(), 9);
        assert_ne!(second.life, life);
    }

    #[test]
    fn a_name_that_could_be_a_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_id("../x").is_err());
        assert!(check_id("").is_err());
        assert!(Identity::take(dir.path(), Some("rack-1.a_b")).is_ok());
    }
}
