//! Finds processes that left their task's process group: they come to the supervisor when their parent ends.
//!
//! Each task's environment carries a mark with its run; a descendant inherits it. One that wiped its environment cannot
//! be told apart, so it is ended when none of the runs is left during which it was first seen.
//!
//! The kernel does not say when an orphan arrives, so this is a scan of /proc, done at most a few times a second and
//! only while there may be something to find.

use rustix::process::Pid;

/// A child of this process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pid: Pid,
    /// It ended, and waits to be reaped.
    pub(crate) zombie: bool,
}

/// All children of process `parent`, whoever started them.
pub(crate) fn children(parent: u32) -> Vec<Found> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // It may be gone by now; then it is nobody's child.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())) else { continue };
        if let Some((state, of)) = state_and_parent(&stat)
            && of == parent
        {
            found.push(Found { pid, zombie: state == 'Z' });
        }
    }
    found
}

/// The run that a process's environment names, if it carries our mark.
pub(crate) fn marked_run(pid: Pid, mark: &str) -> Option<u64> {
    let environment = std::fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    environment.split(|byte| *byte == 0).find_map(|variable| {
        let text = std::str::from_utf8(variable).ok()?;
        text.strip_prefix(MARK_VARIABLE)?.strip_prefix('=')?.strip_prefix(mark)?.strip_prefix(':')?.parse().ok()
    })
}

/// Carries the mark.
pub(crate) const MARK_VARIABLE: &str = "MUSTER_RUN";

/// The program's name, in brackets, may hold anything, brackets and spaces included: fields follow the last one.
fn state_and_parent(stat: &str) -> Option<(char, u32)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_program_names_do_not_confuse() {
        assert_eq!(state_and_parent("12 (a) S 9) Z 77 1 1"), Some(('Z', 77)));
        assert_eq!(state_and_parent("12 (sh) S 1 1"), Some(('S', 1)));
        assert_eq!(state_and_parent("garbage"), None);
    }

    #[test]
    fn a_marked_child_is_found() {
        let mut child = std::process::Command::new("sleep").arg("30").env(MARK_VARIABLE, "here.1:42").spawn().unwrap();
        let pid = Pid::from_child(&child);
        assert!(children(std::process::id()).contains(&Found { pid, zombie: false }));
        // Between fork and exec the environment is still that of the parent.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while marked_run(pid, "here.1").is_none() {
            assert!(std::time::Instant::now() < until, "the mark is seen");
            std::thread::yield_now();
        }
        assert_eq!(marked_run(pid, "here.1"), Some(42));
        assert_eq!(marked_run(pid, "there.1"), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
