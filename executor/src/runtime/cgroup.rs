//! Memory limits by cgroup, version 2 or 1, where the executor may make cgroups; nothing where it may not.
//!
//! A child inherits its parent's cgroup, so the supervisor, which has one thread, enters the task's cgroup, starts the
//! process and goes back: the process is inside from its first instruction, without a hook between fork and exec that
//! would cost every start the fast path. The limit is set after the supervisor has left, so that it can never strike
//! the supervisor itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// Which interface the kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Version {
    V1,
    V2,
}

/// The cgroup under which tasks get theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Home {
    version: Version,
    /// The executor's own, where the supervisor lives.
    base: PathBuf,
    /// Made for the tasks of this executor.
    path: PathBuf,
}

/// A cgroup that cannot be removed within this keeps processes that hang in the kernel; it is left behind.
const REMOVE_WITHIN: Duration = Duration::from_millis(500);

impl Home {
    /// Finds a place where cgroups with a memory limit can really be made, by making one.
    pub(crate) fn detect(name: &str) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
        Self::candidates(&own, &mounts, name).into_iter().find(|home| match home.probe() {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(path = %home.path.display(), %error, "no cgroups can be made here");
                false
            }
        })
    }

    fn candidates(own: &str, mounts: &str, name: &str) -> Vec<Self> {
        let mut candidates = Vec::new();
        for mount in mounts.lines() {
            let fields: Vec<&str> = mount.split(' ').collect();
            let &[_, place, kind, options, ..] = fields.as_slice() else { continue };
            let has_memory = options.split(',').any(|option| option == "memory");
            let version = match kind {
                "cgroup2" => Version::V2,
                "cgroup" if has_memory => Version::V1,
                _ => continue,
            };
            let inside = own.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':');
                let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
                let fits = match version {
                    Version::V2 => controllers.is_empty(),
                    Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
                };
                fits.then(|| path.trim_start_matches('/').to_owned())
            });
            let Some(inside) = inside else { continue };
            // In a container the path may be that of the host; the root of the mount is then the own one.
            let bases = [Path::new(place).join(&inside), PathBuf::from(place)];
            let base = bases.into_iter().find(|base| base.join("cgroup.procs").exists());
            if let Some(base) = base {
                let path = base.join(format!("muster-{name}"));
                candidates.push(Self { version, base, path });
            }
        }
        // The newer one first.
        candidates.sort_by_key(|home| home.version == Version::V1);
        candidates
    }

    /// Makes the home and one cgroup in it with a limit, and removes that again.
    fn probe(&self) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        if self.version == Version::V2 {
            fs::write(self.base.join("cgroup.subtree_control"), "+memory")?;
            fs::write(self.path.join("cgroup.subtree_control"), "+memory")?;
        }
        let probe = self.path.join("probe");
        fs::create_dir_all(&probe)?;
        let limited = fs::write(probe.join(self.limit_file()), (64u64 << 20).to_string())
            .and_then(|()| read_count(&probe.join(self.events_file()), "oom_kill").map(drop));
        fs::remove_dir(&probe)?;
        limited
    }

    pub(crate) fn describe(&self) -> String {
        format!("{:?} at {}", self.version, self.path.display())
    }

    fn limit_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        }
    }

    fn events_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        }
    }

    /// Makes a cgroup for a run and moves the calling process into it.
    pub(crate) fn enter(&self, run: u64) -> io::Result<Inside> {
        let path = self.path.join(format!("run-{run}"));
        match fs::create_dir(&path) {
            // Left behind by a supervisor that was killed; its processes are gone.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        fs::write(path.join("cgroup.procs"), std::process::id().to_string())?;
        Ok(Inside { home: self.clone(), path })
    }

    /// Removes the home, once no tasks are left.
    pub(crate) fn remove(&self) {
        // Whatever is left in it keeps it; an empty directory costs nothing.
        let _ = fs::remove_dir(&self.path);
    }
}

/// The supervisor is in the cgroup of a run: what it starts now belongs there.
#[must_use]
pub(crate) struct Inside {
    home: Home,
    path: PathBuf,
}

impl Inside {
    /// Goes back, and sets the limit on what stays inside.
    pub(crate) fn leave(self, limit_bytes: u64) -> io::Result<Cgroup> {
        fs::write(self.home.base.join("cgroup.procs"), std::process::id().to_string())?;
        let cgroup = Cgroup { events: self.path.join(self.home.events_file()), path: self.path };
        let limited = fs::write(cgroup.path.join(self.home.limit_file()), limit_bytes.to_string());
        if let Err(error) = limited {
            cgroup.kill_and_remove();
            return Err(error);
        }
        // Swap would turn a limit into a slow machine. Not every kernel counts it.
        let _ = match self.home.version {
            Version::V1 => fs::write(cgroup.path.join("memory.memsw.limit_in_bytes"), limit_bytes.to_string()),
            Version::V2 => fs::write(cgroup.path.join("memory.swap.max"), "0"),
        };
        Ok(cgroup)
    }
}

/// The cgroup of one run.
pub(crate) struct Cgroup {
    path: PathBuf,
    events: PathBuf,
}

impl Cgroup {
    /// Whether the kernel ended a process in it for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        read_count(&self.events, "oom_kill").is_ok_and(|count| count > 0)
    }

    /// Ends what is left in it, and removes it.
    pub(crate) fn kill_and_remove(self) {
        let until = Instant::now() + REMOVE_WITHIN;
        loop {
            if let Ok(processes) = fs::read_to_string(self.path.join("cgroup.procs")) {
                let pids = processes.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::from_raw);
                for pid in pids.filter(|pid| *pid != rustix::process::getpid()) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            if fs::remove_dir(&self.path).is_ok() || Instant::now() > until {
                return;
            }
            std::thread::yield_now();
        }
    }
}

fn read_count(path: &Path, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let count = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    count.ok_or_else(|| io::Error::other(format!("{} does not count {name}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_what_the_kernel_mounts() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n";
        assert_eq!(Home::candidates("4:memory:/x\n0::/\n", mounts, "e"), []);
    }
}
