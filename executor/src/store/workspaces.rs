//! Directories that tasks run in, used again and again.
//!
//! Making and removing directories is what a short task costs an executor most: ext4, for one, looks at each inode that was freed
//! within the last seconds before it takes another. So a task is given directories that are there, and one that leaves nothing in
//! them costs the disk nothing at all. What it leaves moves to the directory of its attempt.
//!
//! Invariants: a task finds its directories empty, and as they were made, whatever was done to those of the task before it. What a task
//! used is not used again before [`RESTS`] is over, for processes that escaped from it are found and ended a moment after it.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longer than it takes the supervisor to look for processes that left their group, and than the steps in which file systems tell
/// the time of a change: what is changed after this long has another time.
const RESTS: Duration = Duration::from_secs(1);

/// All of an executor.
#[derive(Debug)]
pub(crate) struct Workspaces {
    root: PathBuf,
    /// Of this life.
    first: u64,
    next: AtomicU64,
    /// Not in use, those that rest the longest first. Locked to take or add one.
    spare: Mutex<VecDeque<(Instant, Workspace)>>,
}

/// The directories of one task: `work`, `output`, and the file `script`.
#[derive(Debug)]
pub(crate) struct Workspace {
    path: PathBuf,
    /// Of `work` and of `output`, since they were empty.
    empty: [Stamp; 2],
    /// It was not used for so long that a change since would show.
    rested: bool,
}

/// Which file it is, and when it was changed last. A change to a directory's entries, mode, owner or attributes is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: u64,
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let stat = rustix::fs::lstat(path)?;
        Ok(Self { inode: stat.st_ino, seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec })
    }

    fn holds(self, path: &Path) -> bool {
        Self::of(path).is_ok_and(|now| now == self)
    }
}

impl Workspaces {
    /// Opens them. Those of earlier lives stay until [`Self::remove_earlier`].
    pub(crate) fn open(root: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let first = numbers(&root)?.max().map_or(0, |newest| newest + 1);
        Ok(Self { root, first, next: AtomicU64::new(first), spare: Mutex::default() })
    }

    /// Removes those of earlier lives. Blocking, and long where their tasks left much.
    pub(crate) fn remove_earlier(&self) -> io::Result<()> {
        numbers(&self.root)?
            .filter(|number| *number < self.first)
            .try_for_each(|number| fs::remove_dir_all(self.root.join(number.to_string())))
    }

    /// One that was used before, if one has rested.
    pub(crate) fn spare(&self) -> Option<Workspace> {
        let mut spare = self.spare.lock().expect("no holder of this lock panics");
        spare
            .front()
            .is_some_and(|(since, _)| since.elapsed() >= RESTS)
            .then(|| spare.pop_front())
            .flatten()
            .map(|(_, workspace)| Workspace { rested: true, ..workspace })
    }

    /// A new one. Blocking.
    pub(crate) fn make(&self) -> io::Result<Workspace> {
        let path = self.root.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        fs::create_dir(&path)?;
        let made = |name: &str| {
            let path = path.join(name);
            fs::create_dir(&path)?;
            Stamp::of(&path)
        };
        let empty = [made("work")?, made("output")?];
        Ok(Workspace { path, empty, rested: false })
    }

    /// It is as it was when it was given out, or has been made so.
    pub(crate) fn give_back(&self, workspace: Workspace) {
        let mut spare = self.spare.lock().expect("no holder of this lock panics");
        spare.push_back((Instant::now(), workspace));
    }
}

fn numbers(root: &Path) -> io::Result<impl Iterator<Item = u64>> {
    Ok(fs::read_dir(root)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

impl Workspace {
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Where the task writes its output.
    pub(crate) fn output(&self) -> PathBuf {
        self.path.join("output")
    }

    pub(crate) fn script(&self) -> PathBuf {
        self.path.join("script")
    }

    /// Whether nothing was done to its directories since it was given out, so that nothing is in them. Where it says no that may
    /// be so all the same.
    pub(crate) fn is_untouched(&self) -> bool {
        let [work, output] = self.empty;
        self.rested && work.holds(&self.work()) && output.holds(&self.output())
    }

    /// Whether this text lies there as its script.
    pub(crate) fn has_script(&self, text: &str) -> bool {
        fs::read(self.script()).is_ok_and(|found| found == text.as_bytes())
    }

    /// Blocking.
    pub(crate) fn write_script(&self, text: &str) -> io::Result<()> {
        // Not into what a task put in its place.
        remove(&self.script())?;
        fs::write(self.script(), text)
    }

    /// Makes it as new, whatever is in it. Blocking.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        for (stamp, path) in self.empty.iter_mut().zip([self.path.join("work"), self.path.join("output")]) {
            if !(self.rested && stamp.holds(&path)) {
                remove(&path)?;
                fs::create_dir(&path)?;
                *stamp = Stamp::of(&path)?;
            }
        }
        Ok(())
    }

    /// Blocking. What cannot be removed stays until the executor's next life.
    pub(crate) fn remove(self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whatever it is, and no matter if it is.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode()
    }

    fn rested(workspaces: &Workspaces) -> Workspace {
        let until = Instant::now() + RESTS * 20;
        loop {
            if let Some(spare) = workspaces.spare() {
                return spare;
            }
            assert!(Instant::now() < until, "nothing is given out again");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_task_finds_its_directories_as_they_were_made_whatever_the_one_before_did() {
        type Deed = (&'static str, fn(&Workspace));
        let deeds: [Deed; 9] = [
            ("nothing", |_| {}),
            ("files", |at| fs::write(at.work().join(".a"), "a").unwrap()),
            ("output", |at| fs::create_dir_all(at.output().join("b/c")).unwrap()),
            ("a file that is gone again", |at| {
                fs::write(at.work().join("a"), "a").unwrap();
                fs::remove_file(at.work().join("a")).unwrap();
            }),
            ("another mode", |at| fs::set_permissions(at.work(), fs::Permissions::from_mode(0o500)).unwrap()),
            ("no directory", |at| fs::remove_dir(at.output()).unwrap()),
            ("another directory", |at| {
                fs::remove_dir(at.work()).unwrap();
                fs::create_dir(at.work()).unwrap();
            }),
            ("a file", |at| {
                fs::remove_dir(at.output()).unwrap();
                fs::write(at.output(), "").unwrap();
            }),
            ("a link", |at| {
                fs::remove_dir(at.work()).unwrap();
                symlink("/", at.work()).unwrap();
            }),
        ];
        let dir = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::open(dir.path().to_owned()).unwrap();
        let modes = |at: &Workspace| (mode(&at.work()), mode(&at.output()));
        let is_new =
            |at: &Workspace| [at.work(), at.output()].iter().all(|path| fs::read_dir(path).unwrap().next().is_none());
        let as_made = modes(&workspaces.make().unwrap());
        // At once after it was made, and after it has rested.
        let mut fresh = workspaces.make().unwrap();
        for (what, deed) in deeds {
            deed(&fresh);
            assert!(!fresh.is_untouched(), "{what}: it cannot be told yet");
            fresh.clear().unwrap();
            assert!(is_new(&fresh) && modes(&fresh) == as_made, "{what}");
        }
        for _ in deeds {
            let mut made = workspaces.make().unwrap();
            made.clear().unwrap();
            workspaces.give_back(made);
        }
        assert!(workspaces.spare().is_none(), "they rest");
        for (what, deed) in deeds {
            let mut old = rested(&workspaces);
            assert!(old.is_untouched() && is_new(&old));
            deed(&old);
            assert_eq!(old.is_untouched(), what == "nothing", "{what}");
            old.clear().unwrap();
            assert!(is_new(&old) && modes(&old) == as_made, "{what}");
        }
    }

    #[test]
    fn a_script_is_the_one_that_was_written_last() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspaces::open(dir.path().to_owned()).unwrap().make().unwrap();
        assert!(!workspace.has_script("one"));
        workspace.write_script("one").unwrap();
        assert!(workspace.has_script("one") && !workspace.has_script("on"));
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        fs::remove_file(workspace.script()).unwrap();
        symlink(&elsewhere, workspace.script()).unwrap();
        workspace.write_script("two").unwrap();
        assert!(workspace.has_script("two"));
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
    }

    #[test]
    fn what_an_earlier_life_left_is_removed_and_its_numbers_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("workspaces");
        let earlier = Workspaces::open(root.clone()).unwrap().make().unwrap();
        fs::write(earlier.work().join("a"), "a").unwrap();
        let workspaces = Workspaces::open(root.clone()).unwrap();
        let own = workspaces.make().unwrap();
        workspaces.remove_earlier().unwrap();
        assert!(!earlier.work().exists() && own.work().exists());
        assert_eq!(numbers(&root).unwrap().count(), 1);
    }
}
