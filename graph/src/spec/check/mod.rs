//! The rules that need no text: what a scheduler checks on every submit, whoever wrote the spec.
//!
//! Everything is linear in the size of the spec and iterative: a chain of 100,000 stages must overflow no stack.

mod graph;
mod job;
mod nested;
mod placement;
mod stage;

use super::decode::Shape;
use super::draft::{more, stage_field};
use super::finding::{FieldPath, Finding, Findings, Point, Segment};
use super::model::{JobSpec, Work};
use super::problem::Problem;

pub(crate) use graph::{Edge, Names};
pub(in crate::spec) use job::env_bytes;
pub use job::is_namespace;

/// All problems of a spec as it is written; none have places. A spec without any compiles once it is [expanded](super::expand()),
/// unless that makes it too large, or what it refers to does not fit.
#[must_use]
pub fn check(spec: &JobSpec) -> Vec<Problem> {
    problems(spec, examine(spec, &Sizes::AllKnown))
}

/// All problems of a spec that was expanded; none have places. One without any compiles, and fits the store.
#[must_use]
pub fn check_expanded(spec: &JobSpec) -> Vec<Problem> {
    problems(spec, examine_as(Form::Expanded, spec, &Sizes::AllKnown))
}

fn problems(spec: &JobSpec, findings: Findings) -> Vec<Problem> {
    let (found, left_out) = findings.into_parts();
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
    Known(&'a Shape),
}

impl Sizes<'_> {
    /// How many tasks, if that is known, and if the stage has any itself.
    fn of(&self, spec: &JobSpec, stage: usize) -> Option<u32> {
        let is_known = match self {
            Self::AllKnown => matches!(spec.stages[stage].work, Work::Process(_)),
            Self::Known(shape) => shape.sized.get(stage).copied().unwrap_or(false),
        };
        is_known.then(|| spec.stages[stage].tasks.count())
    }
}

/// What a spec may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As somebody wrote it: jobs in stages, and no gates.
    Written,
    /// Gates and no jobs; names are paths.
    Expanded,
}

/// Runs all rules for a spec as it is written.
pub(super) fn examine(spec: &JobSpec, sizes: &Sizes<'_>) -> Findings {
    examine_as(Form::Written, spec, sizes)
}

fn examine_as(form: Form, spec: &JobSpec, sizes: &Sizes<'_>) -> Findings {
    let mut rules = Rules { form, findings: Findings::default() };
    rules.job(spec, sizes);
    let mut whole = stage::Whole { placement_bytes: placement::bytes(&spec.placement), items_bytes: 0 };
    for (index, stage) in spec.stages.iter().enumerate() {
        rules.stage(spec, index, stage, &mut whole, sizes);
    }
    rules.borders(spec);
    rules.graph(spec, sizes);
    rules.findings
}

struct Rules {
    form: Form,
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
