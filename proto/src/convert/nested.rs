//! Stages that are jobs.

use muster_graph::spec::{Argument, Gate, JobSpec, Nested, Outputs, Source};

use super::Invalid;
use crate::v1;

impl From<&Nested> for v1::NestedJob {
    fn from(nested: &Nested) -> Self {
        let source = match &nested.source {
            Source::Named { name, revision } => v1::nested_job::Source::Definition(v1::Definition {
                name: name.clone(),
                revision: revision.unwrap_or(0),
            }),
            Source::Inline(spec) => v1::nested_job::Source::Inline((&**spec).into()),
        };
        let with = nested.with.iter().map(|(name, value)| (name.clone(), to_argument(value)));
        Self { source: Some(source), with: with.collect() }
    }
}

pub(super) fn nested(nested: v1::NestedJob, at: &str) -> Result<Nested, Invalid> {
    let source = match nested.source {
        Some(v1::nested_job::Source::Definition(v1::Definition { name, revision })) => {
            Source::Named { name, revision: (revision > 0).then_some(revision) }
        }
        Some(v1::nested_job::Source::Inline(spec)) => {
            let spec = JobSpec::try_from(spec)
                .map_err(|inner| Invalid::new(format!("{at}.inline.{}", inner.field), inner.message))?;
            Source::Inline(Box::new(spec))
        }
        None => return Err(Invalid::new(at, "missing: give definition or inline")),
    };
    Ok(Nested { source, with: nested.with.into_iter().map(|(name, value)| (name, argument(value))).collect() })
}

/// A parameter's value, for the wire.
#[must_use]
pub fn to_argument(argument: &Argument) -> v1::Argument {
    use v1::argument::Value;
    let value = match argument {
        Argument::Null => None,
        Argument::Bool(truth) => Some(Value::Truth(*truth)),
        Argument::Number(number) => Some(Value::Number(number.clone())),
        Argument::Text(text) => Some(Value::Text(text.clone())),
        Argument::Word(word) => Some(Value::Word(word.clone())),
        // Only specs that are merely checked have such values, and those are not sent.
        Argument::Open => None,
        Argument::List(items) => Some(Value::List(v1::ArgumentList { items: items.iter().map(to_argument).collect() })),
        Argument::Map(entries) => Some(Value::Map(v1::ArgumentMap {
            entries: entries.iter().map(|(name, value)| (name.clone(), to_argument(value))).collect(),
        })),
    };
    v1::Argument { value }
}

/// A parameter's value. As deep as the decoder lets messages be.
#[must_use]
pub fn argument(wire: v1::Argument) -> Argument {
    use v1::argument::Value;
    match wire.value {
        None => Argument::Null,
        Some(Value::Truth(truth)) => Argument::Bool(truth),
        Some(Value::Number(number)) => Argument::Number(number),
        Some(Value::Text(text)) => Argument::Text(text),
        Some(Value::Word(word)) => Argument::Word(word),
        Some(Value::List(list)) => Argument::List(list.items.into_iter().map(argument).collect()),
        Some(Value::Map(map)) => {
            Argument::Map(map.entries.into_iter().map(|(name, value)| (name, argument(value))).collect())
        }
    }
}

impl From<Gate> for v1::Gate {
    fn from(gate: Gate) -> Self {
        match gate {
            Gate::Begin => Self::Begin,
            Gate::End => Self::End,
        }
    }
}

/// A border of a nested job; none: a stage.
///
/// # Errors
/// One that this version does not know.
pub fn gate(wire: i32, at: &str) -> Result<Option<Gate>, Invalid> {
    match v1::Gate::try_from(wire) {
        Ok(v1::Gate::Unspecified) => Ok(None),
        Ok(v1::Gate::Begin) => Ok(Some(Gate::Begin)),
        Ok(v1::Gate::End) => Ok(Some(Gate::End)),
        Err(_) => Err(Invalid::new(format!("{at}.gate"), "unknown to this version")),
    }
}

pub(super) fn to_outputs(outputs: &Outputs) -> Option<v1::Outputs> {
    use v1::outputs::Of;
    let of = match outputs {
        Outputs::None => return None,
        Outputs::Of(stage) => Of::Stage(stage.clone()),
        Outputs::Named(stages) => Of::Named(v1::NamedOutputs { stages: stages.clone() }),
    };
    Some(v1::Outputs { of: Some(of) })
}

pub(super) fn outputs(wire: Option<v1::Outputs>) -> Outputs {
    match wire.and_then(|outputs| outputs.of) {
        None => Outputs::None,
        Some(v1::outputs::Of::Stage(stage)) => Outputs::Of(stage),
        Some(v1::outputs::Of::Named(named)) => Outputs::Named(named.stages),
    }
}

#[cfg(test)]
mod tests {
    use muster_graph::spec::{Format, NoFiles, read};

    use super::*;

    #[test]
    fn nested_jobs_survive_the_way_over_the_wire() {
        let text = r#"
            name: all
            takes: [raw]
            outputs: {text: c}
            stages:
              a: {job: etl@3, inputs: {raw: raw}, with: {n: 1.10, t: "1", b: true, l: [x, {m: null}]}}
              b: {job: etl, when: always, after: [a], env: {A: b}}
              c: {job: {outputs: d, stages: {d: {run: x, tasks: 3}}}}
        "#;
        let spec = read(text, Format::Yaml).and_then(|draft| draft.resolve(&NoFiles)).expect("it is right");
        assert_eq!(JobSpec::try_from(v1::JobSpec::from(&spec)), Ok(spec));
    }
}
