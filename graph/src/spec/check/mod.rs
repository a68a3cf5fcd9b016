//! The rules that need no text: what a scheduler checks on every submit, whoever wrote the spec.
//!
//! Everything is linear in the size of the spec and iterative: a chain of 100,000 stages must overflow no stack.

mod graph;
mod job;
mod placement;
mod stage;

use super::draft::{more, stage_field};
use super::finding::{FieldPath, Finding, Findings, Point, Segment};
use super::model::JobSpec;
use super::problem::Problem;

pub(crate) use graph::{Edge, Names};
pub use job::is_namespace;

/// All problems of a spec; none have places. A spec without any compiles, and fits the store.
#[must_use]
pub fn check(spec: &JobSpec) -> Vec<Problem> {
    let (found, left_out) = examine(spec, &Sizes::AllKnown).into_parts();
    let mut problems: Vec<Problem> = found
        .into_iter()
        .map(|finding| {
            let prefix = match finding.path.stage.and_then(|stage| spec.stages.get(stage)) {
                Some(stage) => stage_field(&stage.name),
                None => String::new(),
            };
            Problem { place: None, field: finding.path.render(&prefix), message: finding.message, help: finding.help }
        })
        .collect();
    problems.extend(more(left_out));
    problems
}

/// Of which stages the number of tasks is known.
pub(super) enum Sizes<'a> {
    AllKnown,
    Known(&'a [bool]),
}

impl Sizes<'_> {
    /// How many tasks, if that is known.
    fn of(&self, spec: &JobSpec, stage: usize) -> Option<u32> {
        let is_known = match self {
            Self::AllKnown => true,
            Self::Known(known) => known.get(stage).copied().unwrap_or(false),
        };
        is_known.then(|| spec.stages[stage].tasks.count())
    }
}

/// Runs all rules.
pub(super) fn examine(spec: &JobSpec, sizes: &Sizes<'_>) -> Findings {
    let mut rules = Rules { findings: Findings::default() };
    rules.job(spec, sizes);
    let mut whole = stage::Whole { placement_bytes: placement::bytes(&spec.placement), items_bytes: 0 };
    for (index, stage) in spec.stages.iter().enumerate() {
        rules.stage(spec, index, stage, &mut whole);
    }
    rules.graph(spec, sizes);
    rules.findings
}

struct Rules {
    findings: Findings,
}

impl Rules {
    fn wrong(&mut self, path: FieldPath, message: impl Into<String>, help: impl Into<String>) {
        self.at(Point::Value, path, message, help);
    }

    fn at(&mut self, point: Point, path: FieldPath, message: impl Into<String>, help: impl Into<String>) {
        let (message, help) = (message.into(), help.into());
        self.findings.push(Finding { path, point, span: None, first: None, message, help });
    }

    /// A NUL byte ends a string for the operating system, so no program would ever see what follows it.
    fn no_nul(&mut self, text: &str, path: impl FnOnce() -> FieldPath) {
        if text.contains('\0') {
            self.wrong(path(), "a NUL character cannot be passed to a program", "delete it, or encode it");
        }
    }
}

/// The path of a stage's field.
fn field(stage: usize, key: &'static str) -> FieldPath {
    FieldPath::stage(stage, [Segment::key(key)])
}

/// The path of something inside a stage's field.
fn inside(stage: usize, key: &'static str, segment: Segment) -> FieldPath {
    FieldPath::stage(stage, [Segment::key(key), segment])
}
