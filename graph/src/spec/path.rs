//! Where a stage stands among nested jobs: its names from the root.
//!
//! As text the names are joined by `/`; in a name `/` is written `%2F`, and `%` is written `%25`. So names may hold any
//! character, and different paths are different texts. A nested job's end is called as the job is, and its begin like that
//! with a `/` behind it, which is no path of a stage, since no name is empty.

use std::borrow::Cow;

/// The path of a stage as text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StagePath(String);

impl StagePath {
    /// One level down.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let name = segment(name);
        Self(if self.0.is_empty() { name.into_owned() } else { format!("{}/{name}", self.0) })
    }

    /// What the gate at the begin of the job of this path is called.
    #[must_use]
    pub fn begin(&self) -> String {
        format!("{}/", self.0)
    }

    /// As text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A name as a part of a path's text.
#[must_use]
pub fn segment(name: &str) -> Cow<'_, str> {
    if name.contains(['/', '%']) {
        Cow::Owned(name.replace('%', "%25").replace('/', "%2F"))
    } else {
        Cow::Borrowed(name)
    }
}

/// The last name of a path's text: what the stage is called in its own job.
#[must_use]
pub fn own_name(path: &str) -> Cow<'_, str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let last = path.rsplit_once('/').map_or(path, |(_, last)| last);
    if last.contains('%') { Cow::Owned(last.replace("%2F", "/").replace("%25", "%")) } else { Cow::Borrowed(last) }
}

/// Which nested job a stage or gate belongs to: the path's text without its last name. `None`: to the root.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    let path = path.strip_suffix('/').unwrap_or(path);
    path.rsplit_once('/').map(|(parent, _)| parent)
}

/// How many jobs are around a stage.
#[must_use]
pub fn depth(path: &str) -> usize {
    path.strip_suffix('/').unwrap_or(path).matches('/').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_begin_is_called_like_no_stage() {
        let path = StagePath::default().join("etl").join("a/b");
        assert_eq!((path.as_str(), path.begin().as_str()), ("etl/a%2Fb", "etl/a%2Fb/"));
        assert_eq!((own_name(&path.begin()).as_ref(), parent(&path.begin())), ("a/b", Some("etl")));
        assert_eq!((depth("etl"), depth("etl/"), depth("etl/x/y")), (0, 0, 2));
    }

    proptest! {
        #[test]
        fn no_delimiter_collides(
            one in proptest::collection::vec("[/%25Fa]{1,6}", 1..4),
            other in proptest::collection::vec("[/%25Fa]{1,6}", 1..4),
        ) {
            let path = |names: &[String]| names.iter().fold(StagePath::default(), |path, name| path.join(name));
            prop_assert_eq!(path(&one) == path(&other), one == other);
            prop_assert_ne!(path(&one).begin(), path(&other).into_text());
            let text = path(&one).into_text();
            let last = own_name(&text).into_owned();
            prop_assert_eq!(Some(&last), one.last());
            prop_assert_eq!(depth(&text) + 1, one.len());
        }
    }
}
