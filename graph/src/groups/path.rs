//! What a group is called: the names from the root of its namespace's tree on.
//!
//! As text they are joined by `/`, without one in front, and the root is the empty text: so paths are stored, compared and put
//! into keys. People may write a `/` in front, and `/` for the root. No name has a `/` in it, so different paths are different
//! texts, and what lies in a group begins with its path and a `/`.

use std::fmt;
use std::str::FromStr;

/// Levels below the root: enough for team, pipeline, day and attempt, and few, since what a job does is added up once for each.
pub const GROUP_DEPTH_MAX: usize = 5;
/// Characters of a name. Five of them make a path that still fits a key and a line.
pub const GROUP_NAME_CHARS_MAX: usize = 64;

/// The path of a group. The default is the root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GroupPath(String);

/// Why a text is no path of a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupPathError {
    /// One of its names cannot be one.
    #[error(
        "`{name}` cannot name a group: use 1 to {most} of letters, digits and . _ -, a letter or digit first, and / between names",
        most = GROUP_NAME_CHARS_MAX
    )]
    Name {
        /// Which one; cut, and what would break the line is escaped.
        name: String,
    },
    /// It has more names than there are levels.
    #[error("{depth} names are more than the {most} that the path of a group may have (GROUP_DEPTH_MAX)", most = GROUP_DEPTH_MAX)]
    TooDeep {
        /// How many.
        depth: usize,
    },
}

impl GroupPath {
    /// The group that is always there, and around all others.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// As text, without a `/` in front; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// How many levels it is below the root.
    #[must_use]
    pub fn depth(&self) -> usize {
        names(&self.0).count()
    }

    /// The group that it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        around(&self.0).map(|parent| Self(parent.to_owned()))
    }

    /// The groups that count what is in this one: itself first, then those around it, the root (`""`) last.
    pub fn outwards(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |&path| around(path))
    }

    /// Whether the group of the path `other` is this one or in it.
    #[must_use]
    pub fn holds(&self, other: &str) -> bool {
        match other.strip_prefix(self.as_str()) {
            Some(rest) => self.is_root() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    /// What it is called in the group that it is in; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        names(&self.0).next_back().unwrap_or_default()
    }
}

/// The names in a path's text: none in the root's.
fn names(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(move |_| !path.is_empty())
}

/// The path of the group around another; `None`: it is the root.
fn around(path: &str) -> Option<&str> {
    if path.is_empty() { None } else { Some(path.rsplit_once('/').map_or("", |(parent, _)| parent)) }
}

impl FromStr for GroupPath {
    type Err = GroupPathError;

    fn from_str(text: &str) -> Result<Self, GroupPathError> {
        let path = text.strip_prefix('/').unwrap_or(text);
        if let Some(name) = names(path).find(|name| !is_name(name)) {
            return Err(GroupPathError::Name { name: shown(name) });
        }
        match names(path).count() {
            depth if depth > GROUP_DEPTH_MAX => Err(GroupPathError::TooDeep { depth }),
            _ => Ok(Self(path.to_owned())),
        }
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { self.as_str() })
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= GROUP_NAME_CHARS_MAX
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// A piece of somebody's text inside a message: short, and on one line.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(GROUP_NAME_CHARS_MAX).flat_map(char::escape_debug).collect();
    if name.chars().nth(GROUP_NAME_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}
