//! A stage that is a job.

use std::collections::BTreeMap;

use super::Decoder;
use super::Shape;
use super::fields::Fields;
use super::job::ReadStage;
use super::stage::blank;
use crate::spec::finding::{FieldPath, Findings, Segment, shown};
use crate::spec::keys::STAGE;
use crate::spec::model::{Argument, Arguments, Input, InputKind, Nested, Source, Tasks, Work};
use crate::spec::node::{Entry, Kind, Node, Value};

/// Keys of a stage that a stage has which is a job. At the top level, the last two are the job's own.
const KEYS: &[&str] = &["job", "with", "inputs", "after", "when", "env", "placement"];

impl Decoder {
    pub(super) fn job_stage(&mut self, fields: &mut Fields<'_>, job: &Entry, name: String, is_top: bool) -> ReadStage {
        let mut spec = blank(name);
        spec.tasks = Tasks::Count(0);
        for key in STAGE.iter().map(|key| key.name).filter(|key| !KEYS.contains(key)) {
            // At the top level it is the job's.
            let Some(entry) = fields.get(key).filter(|_| !(is_top && key == "timeout")) else { continue };
            self.within(Segment::key(key), |decoder| {
                let message = format!("a stage that is a job has no `{key}`: it runs nothing itself");
                decoder.wrong(entry.key_span, message, "delete it, or say it in the stages of that job");
            });
        }
        spec.inputs = self.field(fields.get("inputs"), "inputs", Self::job_inputs).unwrap_or_default();
        let after = |decoder: &mut Self, node: &Node| decoder.words(node, "write for example [prepare]");
        spec.after = self.field(fields.get("after"), "after", after).unwrap_or_default();
        spec.when = self.field(fields.get("when"), "when", Self::when).unwrap_or(spec.when);
        let (env, placement) = (fields.get("env"), fields.get("placement"));
        if !is_top {
            spec.env = self.field(env, "env", Self::env).unwrap_or_default();
            spec.placement = self.field(placement, "placement", Self::placement).unwrap_or_default();
        }
        let with = self.field(fields.get("with"), "with", Self::arguments).unwrap_or_default();
        let mut inner = None;
        let source = match &job.value.value {
            Value::Map(_) => {
                let mut decoded =
                    Self { findings: Findings::default(), path: FieldPath::default() }.job(&job.value, true);
                decoded.spec.name.clone_from(&spec.name);
                let mut base = self.path.clone();
                base.tail.push(Segment::key("job"));
                let (inner_spec, shape) = (&decoded.spec, &decoded.shape);
                self.findings.extend_lifted(decoded.findings, |path, point| {
                    Shape::lift(&base, inner_spec, Some(shape), path, point)
                });
                inner = Some((decoded.shape, decoded.deferred));
                Some(Source::Inline(Box::new(decoded.spec)))
            }
            _ => self.field(Some(job), "job", Self::definition),
        };
        // A name that could not be read is not judged again.
        let source = source.unwrap_or(Source::Named { name: String::new(), revision: None });
        spec.work = Work::Job(Nested { source, with });
        ReadStage { spec, is_sized: false, for_each: None, inner }
    }

    /// `NAME` or `NAME@REVISION`.
    fn definition(&mut self, node: &Node) -> Option<Source> {
        const HELP: &str = "write the name of a definition, such as etl or etl@3, or the job itself: {stages: {…}}";
        let Value::Scalar(Kind::Text | Kind::Number, text) = &node.value else {
            self.mismatch(node, "a job", HELP);
            return None;
        };
        let Some((name, revision)) = text.rsplit_once('@').filter(|(_, digits)| is_digits(digits)) else {
            return Some(Source::Named { name: text.to_string(), revision: None });
        };
        match revision.parse::<u32>() {
            Ok(revision) if revision > 0 => Some(Source::Named { name: name.to_owned(), revision: Some(revision) }),
            _ => {
                self.wrong(node.span, format!("{} is no revision", shown(revision)), "revisions are 1, 2, 3 and so on");
                None
            }
        }
    }

    /// What the job takes, and from which stages: the other way round than in a stage that reads for itself, since how it
    /// is read is for the job's own stages to say.
    fn job_inputs(&mut self, node: &Node) -> Option<Vec<Input>> {
        const HELP: &str =
            "write for example {raw: fetch}, where the job takes `raw`; or [raw], where the stage is called so as well";
        if matches!(node.value, Value::List(_)) {
            return Some(self.words(node, HELP)?.into_iter().map(|stage| Input::of(stage, InputKind::All)).collect());
        }
        let entries = self.entries(node, "a map or a list of stages", HELP)?;
        let mut inputs = Vec::with_capacity(entries.len());
        for (_, entry) in entries {
            let taken = entry.key.to_string();
            let read = |decoder: &mut Self| decoder.text(&entry.value);
            let stage = self.within(Segment::Key(taken.clone().into()), read).unwrap_or_default();
            let seen_as = if taken == stage { Vec::new() } else { vec![taken] };
            inputs.push(Input { stage, kind: InputKind::All, seen_as });
        }
        Some(inputs)
    }

    fn arguments(&mut self, node: &Node) -> Option<Arguments> {
        let entries =
            self.entries(node, "a map of parameters to values", "write for example {shards: 8, fast: true}")?;
        let read = |(_, entry): (usize, &Entry)| {
            let value =
                self.within(Segment::Key(entry.key.to_string().into()), |decoder| decoder.argument(&entry.value));
            (entry.key.to_string(), value)
        };
        Some(entries.into_iter().map(read).collect())
    }

    /// Whatever can be written. What a parameter can be, its type says.
    pub(super) fn argument(&mut self, node: &Node) -> Argument {
        match &node.value {
            Value::Scalar(Kind::Open, _) => Argument::Open,
            Value::Scalar(Kind::Null, _) => Argument::Null,
            Value::Scalar(Kind::Bool, text) => Argument::Bool(text.eq_ignore_ascii_case("true")),
            Value::Scalar(Kind::Number, text) => Argument::Number(text.to_string()),
            Value::Scalar(Kind::Text | Kind::Date, text) => Argument::Text(text.to_string()),
            Value::List(items) => {
                let read = |(index, item)| self.within(Segment::Index(index), |decoder| decoder.argument(item));
                Argument::List(items.iter().enumerate().map(read).collect())
            }
            Value::Map(_) => {
                let mut values = BTreeMap::new();
                for (_, entry) in self.entries(node, "a map", "").unwrap_or_default() {
                    let segment = Segment::Key(entry.key.to_string().into());
                    let value = self.within(segment, |decoder| decoder.argument(&entry.value));
                    values.insert(entry.key.to_string(), value);
                }
                Argument::Map(values)
            }
        }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}
