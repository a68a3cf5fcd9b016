//! From the tree to the model, reporting every problem and going on.
//!
//! Where a value cannot be read, its default stands in, so that the rest is still looked at; the rules of
//! [`super::check()`] are told which fields to leave alone. Nothing here judges what a value *means*: that is for the
//! rules, which also run where there is no text.

mod fields;
mod for_each;
mod job;
mod nested;
mod params;
mod placement;
mod scalar;
mod stage;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, hash_map};

use super::draft::ForEach;
use super::finding::{FieldPath, Finding, Findings, Point, Segment, shown};
use super::limits::PROBLEMS_MAX;
use super::model::JobSpec;
use super::node::{Entry, Kind, Node, Span, Value};
pub(super) use params::params;

/// Where a stage stands in the tree.
#[derive(Debug, Clone, Copy)]
pub(super) enum Site {
    /// Its keys are the top level's.
    Top,
    /// The entry of the map `stages`.
    Entry(usize),
    /// The element of the list `stages`.
    Item(usize),
}

/// Stages whose items come from files: their places in the spec, from the outermost job inwards.
pub(super) type Deferred = Vec<(Vec<usize>, ForEach)>;

/// What came of a tree.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) spec: JobSpec,
    pub(super) shape: Shape,
    pub(super) deferred: Deferred,
    pub(super) findings: Findings,
}

/// What is known of a spec that was written as text.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// Of each stage of the spec.
    pub(super) sites: Vec<Site>,
    /// Whether a stage's size is known; not before its files were read, nor if its field could not be read.
    pub(super) sized: Vec<bool>,
    /// Of the jobs that stand in stages.
    pub(super) inner: BTreeMap<usize, Shape>,
}

impl Shape {
    /// Where a field of a job that stands in a stage is, seen from the job around it. `base` is the field `job` of that stage,
    /// `spec` and `shape` are the inner job's; without a shape, stages are taken for keys of a map.
    pub(super) fn lift(
        base: &FieldPath,
        spec: &JobSpec,
        shape: Option<&Self>,
        path: FieldPath,
        point: Point,
    ) -> (FieldPath, Point) {
        let mut lifted = base.clone();
        let mut point = point;
        let mut tail = path.tail;
        if let Some(stage) = path.stage {
            let name = spec.stages.get(stage).map_or_else(String::new, |stage| stage.name.clone());
            let site = shape.and_then(|shape| shape.sites.get(stage).copied()).unwrap_or(Site::Entry(stage));
            if let Site::Entry(index) | Site::Item(index) = site {
                lifted.tail.extend([Segment::key("stages"), Segment::Entry { index, name }]);
            }
            if point == Point::StageName {
                let is_keyed = matches!(site, Site::Entry(_));
                point = if is_keyed { Point::Key } else { Point::Value };
                if is_keyed {
                    tail.clear();
                }
            }
        }
        lifted.tail.extend(tail);
        (lifted, point)
    }
}

/// Reads a tree. Always answers a model; it is worth something only if there are no findings.
pub(super) fn decode(root: &Node) -> Decoded {
    Decoder { findings: Findings::default(), path: FieldPath::default() }.job(root, false)
}

struct Decoder {
    findings: Findings,
    /// Where the decoder is now.
    path: FieldPath,
}

impl Decoder {
    /// A problem of the field where the decoder is now.
    fn wrong(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        // A text of millions of mistakes must not cost a path for each.
        let path = if self.findings.is_full() { FieldPath::default() } else { self.path.clone() };
        let (message, help) = (message.into(), help.into());
        self.findings.push(Finding { path, point: Point::Value, span: Some(span), first: None, message, help });
    }

    /// A value of another kind than the field wants.
    fn mismatch(&mut self, node: &Node, expected: &str, help: impl Into<String>) {
        if matches!(node.value, Value::Scalar(Kind::Open, _)) {
            return self.findings.silence(self.path.clone());
        }
        self.wrong(node.span, format!("expected {expected}, found {}", node.what()), help);
    }

    /// A field that is missing in the map at `span`.
    fn missing(&mut self, key: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let mut path = self.path.clone();
        path.tail.push(Segment::key(key));
        let (message, help) = (message.into(), help.into());
        self.findings.push(Finding { path, point: Point::Value, span: None, first: None, message, help });
    }

    /// Goes one step down, does something there, and comes back.
    fn within<T>(&mut self, segment: Segment, act: impl FnOnce(&mut Self) -> T) -> T {
        self.path.tail.push(segment);
        let result = act(self);
        self.path.tail.pop();
        result
    }

    /// Reads an optional field of a map with fixed keys.
    fn field<T>(
        &mut self,
        entry: Option<&Entry>,
        key: &'static str,
        read: impl FnOnce(&mut Self, &Node) -> Option<T>,
    ) -> Option<T> {
        let entry = entry?;
        self.within(Segment::key(key), |decoder| read(decoder, &entry.value))
    }

    /// Reads each element of a list; where one cannot be read, `stand_in` keeps the others in their places.
    fn list<T>(
        &mut self,
        node: &Node,
        expected: &str,
        help: &str,
        stand_in: impl Fn() -> T,
        mut read: impl FnMut(&mut Self, &Node) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Value::List(items) = &node.value else {
            self.mismatch(node, expected, help);
            return None;
        };
        let read_one =
            |(index, item)| self.within(Segment::Index(index), |decoder| read(decoder, item)).unwrap_or_else(&stand_in);
        Some(items.iter().enumerate().map(read_one).collect())
    }

    /// The entries of a map with free keys, without those whose key was given before.
    fn entries<'n>(&mut self, node: &'n Node, expected: &str, help: &str) -> Option<Vec<(usize, &'n Entry)>> {
        let Value::Map(entries) = &node.value else {
            self.mismatch(node, expected, help);
            return None;
        };
        let mut seen: HashMap<&str, Span> = HashMap::with_capacity(entries.len());
        let mut once = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match seen.entry(&entry.key) {
                hash_map::Entry::Vacant(place) => {
                    place.insert(entry.key_span);
                    once.push((index, entry));
                }
                hash_map::Entry::Occupied(first) => self.given_twice(entry, *first.get()),
            }
        }
        Some(once)
    }

    fn given_twice(&mut self, entry: &Entry, first: Span) {
        let mut path = self.path.clone();
        path.tail.push(Segment::Key(Cow::Owned(entry.key.to_string())));
        self.findings.push(Finding {
            path,
            point: Point::Key,
            span: Some(entry.key_span),
            first: Some(first),
            message: format!("`{}` is given twice", shown(&entry.key)),
            help: "keep one of them".to_owned(),
        });
    }
}

// A hostile text can hold two million values; the paths of its findings must not.
const _: () = assert!(PROBLEMS_MAX <= 1_000, "each finding holds its whole path");
