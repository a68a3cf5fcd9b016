//! Who waits for whom, and who reads what, across the borders of nested jobs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Child, Expander};
use crate::spec::finding::shown;
use crate::spec::model::{Input, JobSpec, Outputs, StageSpec, When, Work};
use crate::spec::path::{StagePath, own_name};
use crate::spec::placement::Placement;

/// What is around the stages of a job.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) path: StagePath,
    /// The job's begin; none for the root.
    pub(super) begin: Option<String>,
    /// For every stage, but for the root's own variables, which stay the job's.
    pub(super) env: BTreeMap<String, String>,
    pub(super) placement: Placement,
    /// What stands for the inputs that the job takes.
    pub(super) takes: BTreeMap<String, Vec<Readable>>,
}

/// A stage whose output is read, and where below the name that it is read by.
#[derive(Clone)]
pub(super) struct Readable {
    /// Its path as text.
    pub(super) stage: String,
    below: Vec<String>,
}

/// The names of one job's own spec.
pub(super) struct Level<'s> {
    stages: HashMap<&'s str, &'s StageSpec>,
    takes: HashSet<&'s str>,
    /// Outputs of the jobs that its stages are, as far as somebody has asked: looked for once, however many read them.
    found: HashMap<&'s str, Vec<Readable>>,
}

impl<'s> Level<'s> {
    pub(super) fn of(spec: &'s JobSpec) -> Self {
        Self {
            stages: spec.stages.iter().map(|stage| (stage.name.as_str(), stage)).collect(),
            takes: spec.takes.iter().map(String::as_str).collect(),
            found: HashMap::new(),
        }
    }

    fn is_taken(&self, name: &str) -> bool {
        self.takes.contains(name)
    }

    /// The stages of its own job that a stage waits for, as paths. A nested job's end bears the path of the job.
    pub(super) fn waits(&self, stage: &StageSpec, scope: &Scope) -> Vec<String> {
        let inputs = stage.inputs.iter().map(|input| &input.stage).filter(|name| !self.is_taken(name));
        inputs.chain(&stage.after).map(|name| scope.path.join(name).into_text()).collect()
    }

    /// The begin of its job, if the stage has to wait for it: unless it needs the success of something inside, which does.
    pub(super) fn begin(&self, stage: &StageSpec, scope: &Scope) -> Option<String> {
        let waits = !stage.after.is_empty() || stage.inputs.iter().any(|input| !self.is_taken(&input.stage));
        if waits && stage.when == When::OnSuccess { None } else { scope.begin.clone() }
    }
}

impl Expander<'_> {
    /// What a stage reads, and what it waits for besides.
    pub(super) fn inputs(
        &mut self,
        level: &mut Level<'_>,
        stage: &StageSpec,
        scope: &Scope,
    ) -> (Vec<Input>, Vec<String>) {
        let mut inputs = Vec::with_capacity(stage.inputs.len());
        let mut after: Vec<String> = stage.after.iter().map(|name| scope.path.join(name).into_text()).collect();
        for input in &stage.inputs {
            if is_job(level, &input.stage) {
                after.push(scope.path.join(&input.stage).into_text());
            }
            for readable in self.readables(level, &input.stage, stage, scope) {
                let mut seen_as = vec![input.stage.clone()];
                seen_as.extend(readable.below);
                if seen_as.len() == 1 && own_name(&readable.stage) == input.stage {
                    seen_as.clear();
                }
                inputs.push(Input { stage: readable.stage, kind: input.kind, seen_as });
            }
        }
        (inputs, after)
    }

    /// What stands for each input that a nested job takes.
    pub(super) fn bindings(
        &mut self,
        level: &mut Level<'_>,
        stage: &StageSpec,
        child: &JobSpec,
        scope: &Scope,
    ) -> BTreeMap<String, Vec<Readable>> {
        let path = scope.path.join(&stage.name);
        let takes: BTreeSet<&String> = child.takes.iter().collect();
        let mut bound = BTreeMap::new();
        for input in &stage.inputs {
            let taken = input.seen_as.first().unwrap_or(&input.stage);
            if !takes.contains(taken) {
                let help = match child.takes.as_slice() {
                    [] => "it takes none: name the stage in `after`, to wait for it only".to_owned(),
                    some => format!("it takes {}; what is only waited for stands in `after`", list(some)),
                };
                let message = format!("the job of `{}` takes no input `{}`", shown(&stage.name), shown(taken));
                self.problem(&path, "inputs", message, help);
                continue;
            }
            let readables = self.readables(level, &input.stage, stage, scope);
            bound.insert(taken.clone(), readables);
        }
        for taken in child.takes.iter().filter(|taken| !bound.contains_key(*taken)) {
            let message = format!("nothing is given for the input `{}` that the job takes", shown(taken));
            let help = format!("say which stage it is, for example inputs: {{{}: STAGE}}", shown(taken));
            self.problem(&path, "inputs", message, help);
        }
        bound
    }

    /// The stages whose output is read by a name: that of a stage, of a nested job, or of an input that the job takes.
    fn readables(&mut self, level: &mut Level<'_>, name: &str, reader: &StageSpec, scope: &Scope) -> Vec<Readable> {
        if level.is_taken(name) {
            return scope.takes.get(name).cloned().unwrap_or_default();
        }
        let path = scope.path.join(name);
        if let Some(known) = level.found.get(name) {
            return known.clone();
        }
        let Some(&stage) = level.stages.get(name) else { return Vec::new() };
        let Work::Job(nested) = &stage.work else {
            return vec![Readable { stage: path.into_text(), below: Vec::new() }];
        };
        let Some(child) = self.child(stage, nested, &path) else { return Vec::new() };
        if child.outputs == Outputs::None {
            let message =
                format!("`{}` is read by `{}`, but its job declares no outputs", shown(name), shown(&reader.name));
            let help =
                "say in that job whose output it is, for example outputs: STAGE; or name it in `after`, to wait only";
            self.problem(&path, "job", message, help);
        }
        let readables = self.outputs(&child, &path);
        level.found.insert(stage.name.as_str(), readables.clone());
        readables
    }

    /// The stages that are a job's declared outputs.
    fn outputs(&mut self, child: &Child<'_>, path: &StagePath) -> Vec<Readable> {
        let named: Vec<(Option<&String>, &String)> = match &child.outputs {
            Outputs::None => return Vec::new(),
            Outputs::Of(stage) => vec![(None, stage)],
            Outputs::Named(stages) => stages.iter().map(|(name, stage)| (Some(name), stage)).collect(),
        };
        let level = Level::of(child);
        let mut readables = Vec::with_capacity(named.len());
        for (name, stage) in named {
            let path = path.join(stage);
            let found = match level.stages.get(stage.as_str()).map(|stage| (stage, &stage.work)) {
                Some((stage, Work::Job(nested))) => match self.child(stage, nested, &path) {
                    Some(inner) if inner.outputs == Outputs::None => {
                        let message = format!(
                            "`{}` is an output of its job, but is a job that declares none",
                            shown(&stage.name)
                        );
                        self.problem(
                            &path,
                            "job",
                            message,
                            "say in that job whose output it is, for example outputs: STAGE",
                        );
                        continue;
                    }
                    Some(inner) => self.outputs(&inner, &path),
                    None => continue,
                },
                _ => vec![Readable { stage: path.into_text(), below: Vec::new() }],
            };
            readables.extend(found.into_iter().map(|Readable { stage, below }| Readable {
                stage,
                below: name.cloned().into_iter().chain(below).collect(),
            }));
        }
        readables
    }
}

fn is_job(level: &Level<'_>, name: &str) -> bool {
    !level.is_taken(name) && level.stages.get(name).is_some_and(|stage| matches!(stage.work, Work::Job(_)))
}

fn list(names: &[String]) -> String {
    const SHOWN_MAX: usize = 10;
    let some: Vec<String> = names.iter().take(SHOWN_MAX).map(|name| format!("`{}`", shown(name))).collect();
    let more = if names.len() > SHOWN_MAX { ", …" } else { "" };
    format!("{}{more}", some.join(", "))
}
