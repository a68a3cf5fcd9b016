//! What is wrong with a spec, for people: where, which field, what, and how to mend it.

use std::fmt;

/// A place in a spec's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Bytes before it.
    pub offset: usize,
    /// Bytes that are meant; never beyond the end of the line.
    pub len: usize,
}

/// One thing that is wrong with a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where; none if there is no text, or nothing in it to point at.
    pub place: Option<Place>,
    /// The field's path, such as `stages.map.inputs`; empty if the text as a whole is meant.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place {
            write!(f, "line {}, column {}: ", place.line, place.column)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}\n  help: {}", self.message, self.help)
    }
}

/// All problems of a spec, in the order of its text. Never empty; at most
/// [`PROBLEMS_MAX`](super::limits::PROBLEMS_MAX), and one more that says how many were left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// Moves the offsets, for a text that begins with bytes that were left out.
    pub(super) fn shifted(mut self, bytes: usize) -> Self {
        for place in self.0.iter_mut().filter_map(|problem| problem.place.as_mut()) {
            place.offset += bytes;
        }
        self
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}
