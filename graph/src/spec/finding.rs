//! A problem before it has a place: the decoder knows the span, the rules of [`super::check()`] know only the field.
//!
//! [`Findings`] is bounded: a hostile text with a million mistakes costs a counter, not a million messages.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::limits::PROBLEMS_MAX;
use super::node::Span;

/// One step of a field's path.
#[derive(Debug, Clone)]
pub(super) enum Segment {
    /// A key of a map.
    Key(Cow<'static, str>),
    /// An element of a list.
    Index(usize),
    /// Something named that may be written as a key of a map or as an element of a list.
    Entry {
        /// Which one.
        index: usize,
        /// Its name.
        name: String,
    },
}

impl Segment {
    pub(super) fn key(name: &'static str) -> Self {
        Self::Key(Cow::Borrowed(name))
    }

    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Key(a), Self::Key(b)) => a == b,
            (Self::Index(a) | Self::Entry { index: a, .. }, Self::Index(b) | Self::Entry { index: b, .. }) => a == b,
            (Self::Key(_), _) | (_, Self::Key(_)) => false,
        }
    }
}

/// Which field. Inside a stage, from the stage on; otherwise from the top.
#[derive(Debug, Clone, Default)]
pub(super) struct FieldPath {
    /// Position of the stage in the spec.
    pub(super) stage: Option<usize>,
    /// The steps below it.
    pub(super) tail: Vec<Segment>,
}

impl FieldPath {
    pub(super) fn job(tail: impl Into<Vec<Segment>>) -> Self {
        Self { stage: None, tail: tail.into() }
    }

    pub(super) fn stage(index: usize, tail: impl Into<Vec<Segment>>) -> Self {
        Self { stage: Some(index), tail: tail.into() }
    }

    /// Whether `other` is this field or a part of it.
    fn covers(&self, other: &Self) -> bool {
        self.stage == other.stage
            && self.tail.len() <= other.tail.len()
            && self.tail.iter().zip(&other.tail).all(|(a, b)| a.same(b))
    }

    /// For people. `prefix` is what the stage itself is called, such as `stages.map`.
    pub(super) fn render(&self, prefix: &str) -> String {
        let mut text = prefix.to_owned();
        for segment in &self.tail {
            match segment {
                Segment::Index(index) => {
                    write!(text, "[{index}]").expect("writing to a String cannot fail");
                }
                Segment::Key(key) => push_key(&mut text, key),
                Segment::Entry { name, .. } => push_key(&mut text, name),
            }
        }
        text
    }
}

/// A user's key can be long, or hold dots and line breaks; a path stays one readable line.
pub(super) fn push_key(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    let is_plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_-/".contains(c));
    let key = shown(key);
    if is_plain { text.push_str(&key) } else { write!(text, "\"{key}\"").expect("writing to a String cannot fail") }
}

/// A piece of the user's text inside a message: one line, at most 60 characters.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    let mut out = String::new();
    for c in text.chars().take(SHOWN_CHARS_MAX) {
        // Only what would break the line or hide itself.
        if c.is_control() { out.extend(c.escape_debug()) } else { out.push(c) }
    }
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// What a finding without a span points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// The field's value.
    Value,
    /// The field's key.
    Key,
    /// The name of the stage.
    StageName,
}

/// One problem, not yet placed.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub(super) path: FieldPath,
    pub(super) point: Point,
    /// Known only to whoever reads text.
    pub(super) span: Option<Span>,
    /// Another place that belongs to it, for the help.
    pub(super) first: Option<Span>,
    pub(super) message: String,
    pub(super) help: String,
}

/// A bounded collection.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    found: Vec<Finding>,
    /// Fields whose problem was told elsewhere, such as by the misspelt key beside them.
    told: Vec<FieldPath>,
    left_out: usize,
}

impl Findings {
    /// What the rules say about this field, or a part of it, would be noise.
    pub(super) fn silence(&mut self, path: FieldPath) {
        if self.told.len() < PROBLEMS_MAX {
            self.told.push(path);
        }
    }

    pub(super) fn push(&mut self, finding: Finding) {
        if self.found.len() < PROBLEMS_MAX { self.found.push(finding) } else { self.left_out += 1 }
    }

    /// Adds what the rules found, except about fields that could not even be read: that would be noise.
    pub(super) fn extend_unless_covered(&mut self, more: Findings) {
        let before = self.found.len();
        for finding in more.found {
            let found = self.found[..before].iter().map(|known| &known.path);
            if !found.chain(&self.told).any(|known| known.covers(&finding.path)) {
                self.push(finding);
            }
        }
        self.left_out += more.left_out;
    }

    /// Adds all of them.
    pub(super) fn extend(&mut self, more: Findings) {
        more.found.into_iter().for_each(|finding| self.push(finding));
        self.left_out += more.left_out;
    }

    /// Each as `keep` has it.
    pub(super) fn filter_map(self, keep: impl FnMut(Finding) -> Option<Finding>) -> Self {
        Self { found: self.found.into_iter().filter_map(keep).collect(), ..self }
    }

    /// Adds those of a job that stands in a stage, with their places seen from here.
    pub(super) fn extend_lifted(&mut self, inner: Findings, lift: impl Fn(FieldPath, Point) -> (FieldPath, Point)) {
        for finding in inner.found {
            let (path, point) = lift(finding.path, finding.point);
            self.push(Finding { path, point, ..finding });
        }
        for path in inner.told {
            self.silence(lift(path, Point::Value).0);
        }
        self.left_out += inner.left_out;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.left_out == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= PROBLEMS_MAX
    }

    pub(super) fn into_parts(self) -> (Vec<Finding>, usize) {
        (self.found, self.left_out)
    }
}

impl From<Finding> for Findings {
    fn from(finding: Finding) -> Self {
        Self { found: vec![finding], ..Self::default() }
    }
}
