//! Rules about stages that are jobs, and about what crosses a job's border.

use std::collections::BTreeSet;

use super::job::bad_name;
use super::{Form, Rules, Sizes, examine, field};
use crate::spec::decode::Shape;
use crate::spec::finding::{FieldPath, Point, Segment, shown};
use crate::spec::limits::BORDER_NAMES_MAX;
use crate::spec::model::{JobSpec, Nested, Outputs, Source, StageSpec};

impl Rules {
    /// A stage that is a job. One that stands in it is looked at as a whole.
    pub(super) fn nested(&mut self, index: usize, stage: &StageSpec, nested: &Nested, sizes: &Sizes<'_>) {
        if self.form == Form::Expanded {
            return self.wrong(field(index, "job"), "the spec was not expanded", "expand it before it is compiled");
        }
        if stage.tasks.count() > 0 {
            let message = "a stage that is a job has no tasks of its own";
            self.wrong(field(index, "tasks"), message, "say it in the stages of that job");
        }
        let mut bound = BTreeSet::new();
        for input in &stage.inputs {
            let taken = input.seen_as.first().unwrap_or(&input.stage);
            if input.seen_as.len() > 1 || !bound.insert(taken) {
                let message = format!("the input `{}` is given twice", shown(taken));
                self.at(Point::Key, field(index, "inputs"), message, "delete one of the two");
            }
        }
        match &nested.source {
            Source::Named { name, revision } => {
                if let Some((message, help)) = bad_name(name, "definition") {
                    self.wrong(field(index, "job"), message, help);
                }
                if *revision == Some(0) {
                    self.wrong(field(index, "job"), "0 is no revision", "revisions are 1, 2, 3 and so on");
                }
            }
            Source::Inline(inner) => {
                if !nested.with.is_empty() {
                    let message = "`with` gives values to the parameters of a definition, and this job has none";
                    self.at(Point::Key, field(index, "with"), message, "write the values where they are meant");
                }
                let shape = match sizes {
                    Sizes::AllKnown => None,
                    Sizes::Known(shape) => shape.inner.get(&index),
                };
                let found = examine(inner, &shape.map_or(Sizes::AllKnown, Sizes::Known));
                let base = field(index, "job");
                self.findings.extend_lifted(found, |path, point| Shape::lift(&base, inner, shape, path, point));
            }
        }
    }

    /// Gates come from expansion only.
    pub(super) fn gate(&mut self, index: usize, stage: &StageSpec) {
        if self.form == Form::Written || stage.tasks.count() > 0 || !stage.inputs.is_empty() {
            let message = "a stage cannot be a gate: those are made for stages that are jobs";
            self.wrong(field(index, "work"), message, "say what a task runs, or which job the stage is");
        }
    }

    /// What the job takes and what it leaves.
    pub(super) fn borders(&mut self, spec: &JobSpec) {
        let stages: BTreeSet<&str> = match (&spec.takes[..], &spec.outputs) {
            ([], Outputs::None) => return,
            _ => spec.stages.iter().map(|stage| stage.name.as_str()).collect(),
        };
        let at = |key, tail: &[Segment]| {
            let mut path = FieldPath::job([Segment::key(key)]);
            path.tail.extend_from_slice(tail);
            path
        };
        let named = match &spec.outputs {
            Outputs::None => 0,
            Outputs::Of(_) => 1,
            Outputs::Named(stages) => stages.len(),
        };
        for (key, count) in [("takes", spec.takes.len()), ("outputs", named)] {
            if count > BORDER_NAMES_MAX {
                let message = format!("{count} names are more than the {BORDER_NAMES_MAX} that may stand here");
                self.at(Point::Key, at(key, &[]), message, "let one stage gather what belongs together");
            }
        }
        let mut seen = BTreeSet::new();
        for (position, taken) in spec.takes.iter().enumerate() {
            let here = || at("takes", &[Segment::Index(position)]);
            if let Some((message, help)) = bad_name(taken, "input") {
                self.wrong(here(), message, help);
            } else if stages.contains(taken.as_str()) {
                let message = format!("`{}` is a stage of this job, so it is not taken from around it", shown(taken));
                self.wrong(here(), message, "call the input differently");
            } else if !seen.insert(taken) {
                self.wrong(here(), format!("`{}` is named twice", shown(taken)), "delete one of the two");
            }
        }
        let mut read = BTreeSet::new();
        let mut output = |rules: &mut Self, stage: &str, path: FieldPath| {
            if !stages.contains(stage) {
                let help = "name one of the job's own stages";
                rules.wrong(path, format!("there is no stage `{}`", shown(stage)), help);
            } else if !read.insert(stage.to_owned()) {
                rules.wrong(path, format!("`{}` is named twice", shown(stage)), "delete one of the two");
            }
        };
        match &spec.outputs {
            Outputs::None => {}
            Outputs::Of(stage) => output(self, stage, at("outputs", &[])),
            Outputs::Named(named) => {
                if named.is_empty() {
                    let help = "write for example {report: join}, or leave the key out";
                    self.wrong(at("outputs", &[]), "the map names no output", help);
                }
                for (name, stage) in named {
                    let here = || at("outputs", &[Segment::Key(name.clone().into())]);
                    if let Some((message, help)) = bad_name(name, "output") {
                        self.at(Point::Key, here(), message, help);
                    }
                    output(self, stage, here());
                }
            }
        }
    }
}
