//! What a successful attempt leaves: its files, described by a manifest, visible all at once or not at all.
//!
//! Invariants: an output is visible only if its manifest is, which is renamed into place last; only attempts that ended
//! well are published; nothing that is published is written again.

pub(crate) mod manifest;
pub(crate) mod publish;
pub(crate) mod send;

use std::path::{Component, Path};

/// Mode bits that count for the checksum, and that a reader gets: whether it may be executed.
pub(crate) const EXECUTE_BITS: u32 = 0o111;
/// Type bits of a symbolic link, as in a mode of stat(2).
pub(crate) const LINK_BITS: u32 = 0o120_000;
/// All type bits.
pub(crate) const TYPE_BITS: u32 = 0o170_000;

/// Whether a path that came from elsewhere names something below the directory it is joined to, and nothing else.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let mut components = Path::new(path).components().peekable();
    components.peek().is_some()
        && components.all(|component| matches!(component, Component::Normal(_)))
        && !path.bytes().any(|byte| byte == 0)
        && !path.ends_with('/')
        && !path.contains("//")
}

/// Whether a symbolic link at `path` with this target stays inside the output, wherever the output lies.
///
/// A target is relative, and goes up only at its beginning, at most to the output's root: parents of a path are real
/// directories, so going up from them is what it looks like. Going up after a name is refused, for the name may be a
/// link to elsewhere.
pub(crate) fn link_stays_inside(path: &str, target: &str) -> bool {
    let depth = Path::new(path).components().count() - 1;
    let mut up = 0;
    let mut went_down = false;
    for component in Path::new(target).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(_) => went_down = true,
            Component::ParentDir if went_down => return false,
            Component::ParentDir => up += 1,
            Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    up <= depth && !target.is_empty() && !target.bytes().any(|byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_are_known() {
        for good in ["a", "a/b", "a b/c.d", "..a", "0"] {
            assert!(is_plain_path(good), "{good}");
        }
        for bad in ["", "/", "/a", "../a", "a/../b", "a/..", ".", "./a", "a//b", "a/", "a\0b"] {
            assert!(!is_plain_path(bad), "{bad}");
        }
    }

    #[test]
    fn links_that_lead_out_are_known() {
        for (path, good) in [("a", "b"), ("a", "b/c"), ("d/a", "../b"), ("d/e/a", "../../b/c"), ("a", "./b")] {
            assert!(link_stays_inside(path, good), "{path} -> {good}");
        }
        for (path, bad) in
            [("a", "/etc/passwd"), ("a", "../b"), ("d/a", "../../b"), ("a", "b/../c"), ("a", ""), ("a", "b/../../c")]
        {
            assert!(!link_stays_inside(path, bad), "{path} -> {bad}");
        }
    }
}
