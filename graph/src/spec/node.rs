//! One tree for all formats, in which every value knows its place in the text.
//!
//! Invariants: nesting is at most [`SPEC_DEPTH_MAX`](super::limits::SPEC_DEPTH_MAX), so walking by recursion is safe;
//! there are at most [`SPEC_VALUES_MAX`](super::limits::SPEC_VALUES_MAX) values. Keys may still repeat: whoever reads
//! a map reports that, since only it knows the field's path.

use super::finding::Segment;
use super::problem::Place;

/// A range of bytes of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    /// Offsets of a text of at most 32 MiB.
    pub(super) fn new(start: usize, end: usize) -> Self {
        let narrow = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { start: narrow(start), end: narrow(end.max(start)) }
    }
}

/// What kind of scalar the format says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    Text,
    Date,
    /// Not the format's: what stands for a parameter that has no value yet. It is fine everywhere, and reads as nothing.
    Open,
}

/// A value. Scalars keep their text as written: `1.10` stays `1.10`.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar(Kind, Box<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) span: Span,
}

/// A key of a map, with its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    pub(super) key_span: Span,
    pub(super) value: Node,
}

impl Node {
    pub(super) fn scalar(kind: Kind, text: impl Into<Box<str>>, span: Span) -> Self {
        Self { value: Value::Scalar(kind, text.into()), span }
    }

    /// What it is, with its article.
    pub(super) fn what(&self) -> &'static str {
        match &self.value {
            Value::Scalar(Kind::Null, _) => "nothing",
            Value::Scalar(Kind::Bool, _) => "true or false",
            Value::Scalar(Kind::Number, _) => "a number",
            Value::Scalar(Kind::Text, _) => "text",
            Value::Scalar(Kind::Date, _) => "a date",
            Value::Scalar(Kind::Open, _) => "an unknown value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The first entry with that key.
    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| &*entry.key == key),
            Value::Scalar(..) | Value::List(_) => None,
        }
    }

    /// Follows a path as far as it goes. Answers the last node, its key if it has one, and whether that was all.
    pub(super) fn walk<'a>(&'a self, own_key: Option<Span>, path: &[Segment]) -> (&'a Node, Option<Span>, bool) {
        let (mut node, mut key) = (self, own_key);
        for segment in path {
            let next = match (segment, &node.value) {
                (Segment::Key(name), Value::Map(_)) => node.get(name).map(|entry| (&entry.value, Some(entry.key_span))),
                (Segment::Index(index) | Segment::Entry { index, .. }, Value::List(items)) => {
                    items.get(*index).map(|item| (item, None))
                }
                (Segment::Index(index) | Segment::Entry { index, .. }, Value::Map(entries)) => {
                    entries.get(*index).map(|entry| (&entry.value, Some(entry.key_span)))
                }
                (Segment::Key(_), Value::List(_)) | (_, Value::Scalar(..)) => None,
            };
            match next {
                Some(found) => (node, key) = found,
                None => return (node, key, false),
            }
        }
        (node, key, true)
    }
}

/// Turns offsets into lines and columns. Quick when asked in the order of the text, even if all of it is one line.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
    /// An offset, and its column from 0.
    last: (usize, usize),
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts, last: (0, 0) }
    }

    /// The place of a span; any span, even one that is not on character boundaries.
    pub(super) fn place(&mut self, span: Span) -> Place {
        let offset = self.boundary(span.start as usize);
        let line = self.starts.partition_point(|&start| start <= offset) - 1;
        let marked = &self.text[offset..self.boundary(span.end as usize).max(offset)];
        let len = marked.find(['\n', '\r']).unwrap_or(marked.len());
        let (known, columns) = if self.last.0 <= offset { self.last } else { (0, 0) };
        let (from, columns) = if known >= self.starts[line] { (known, columns) } else { (self.starts[line], 0) };
        let columns = columns + self.text[from..offset].chars().count();
        self.last = (offset, columns);
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { line: narrow(line + 1), column: narrow(columns + 1), offset, len }
    }

    /// The line of a span, from 1.
    pub(super) fn line(&self, span: Span) -> usize {
        self.starts.partition_point(|&start| start <= span.start as usize)
    }

    /// The nearest boundary of characters at or before an offset.
    fn boundary(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_do_not_depend_on_the_order_of_asking(
            text in "[a\\né\r𝕏]{0,40}",
            spans in proptest::collection::vec((0usize..120, 0usize..120), 1..6),
        ) {
            let mut lines = Lines::of(&text);
            for (start, end) in spans {
                let span = Span::new(start, end);
                let place = lines.place(span);
                prop_assert_eq!(place, Lines::of(&text).place(span));
                let before = &text[..place.offset];
                prop_assert_eq!(place.line as usize, before.matches('\n').count() + 1);
                let in_line = before.rsplit('\n').next().unwrap().chars().count();
                prop_assert_eq!(place.column as usize, in_line + 1);
                prop_assert!(!text[place.offset..place.offset + place.len].contains(['\n', '\r']));
            }
        }
    }
}
