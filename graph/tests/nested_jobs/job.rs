//! A job read from text, expanded with definitions from text, and driven by the names of its stages.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_graph::execution::{
    AttemptEnd, Effect, Event, ExecutionGraph, Exit, FailureClass, JobState, Outcome, Output, StageState,
};
use muster_graph::ids::{ExecutorKey, JobId, StageIndex, TaskId};
use muster_graph::plan::Plan;
use muster_graph::spec::{
    Argument, Arguments, Expanded, Format, Found, JobSpec, Library, NoFiles, Outline, Problems, Unknown, expand, read,
};

/// Definitions by name, their revisions in order. In their texts `$NAME` stands for an argument.
#[derive(Default)]
pub(crate) struct Defined(BTreeMap<String, Vec<String>>);

impl Defined {
    pub(crate) fn of(definitions: &[(&str, &str)]) -> Self {
        let mut defined = Self::default();
        for (name, text) in definitions {
            defined.0.entry((*name).to_owned()).or_default().push((*text).to_owned());
        }
        defined
    }
}

pub(crate) fn spec(text: &str) -> JobSpec {
    let whole = if text.contains("name: ") { text.to_owned() } else { format!("{{name: job, {text}}}") };
    read(&whole, Format::Yaml)
        .and_then(|draft| draft.resolve(&NoFiles))
        .unwrap_or_else(|problems| panic!("{text}: {problems}"))
}

/// With some value in the place of each argument: an outline does not depend on them.
fn blank(text: &str) -> String {
    let mut parts = text.split('$');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "1" + part.trim_start_matches(|c: char| c.is_ascii_lowercase()))
}

impl Library for Defined {
    fn find(&self, name: &str, revision: Option<u32>) -> Result<Found, Unknown> {
        let unknown = || Unknown { message: format!("there is no definition `{name}`"), help: "define it".to_owned() };
        let revisions = self.0.get(name).ok_or_else(unknown)?;
        let revision = revision.unwrap_or(revisions.len() as u32);
        let text = revisions.get(revision as usize - 1).ok_or_else(unknown)?;
        Ok(Found { revision, outline: Arc::new(Outline::of(&spec(&blank(text)))) })
    }

    fn instantiate(&self, name: &str, revision: u32, with: &Arguments) -> Result<JobSpec, Problems> {
        let mut text = self.0[name][revision as usize - 1].clone();
        for (name, value) in with {
            let (Argument::Number(value) | Argument::Text(value)) = value else { panic!("{value:?}") };
            text = text.replace(&format!("${name}"), value);
        }
        Ok(spec(&text))
    }
}

pub(crate) fn expanded(text: &str, library: &Defined) -> Expanded {
    expand(spec(text), library).unwrap_or_else(|problems| panic!("{text}: {problems}"))
}

/// Why it is refused.
pub(crate) fn refused(text: &str, library: &Defined) -> String {
    expand(spec(text), library).map(|_| ()).expect_err("it is refused").to_string()
}

pub(crate) struct Job {
    pub(crate) graph: ExecutionGraph,
    /// Names of the stages in the order of their first assignments, each as often as it was assigned.
    pub(crate) ran: Vec<String>,
}

impl Job {
    pub(crate) fn of(text: &str) -> Self {
        Self::with(text, &[])
    }

    pub(crate) fn with(text: &str, definitions: &[(&str, &str)]) -> Self {
        Self::start(&expanded(text, &Defined::of(definitions)).spec)
    }

    pub(crate) fn start(spec: &JobSpec) -> Self {
        let plan = Plan::compile(spec, |_| String::new()).unwrap();
        let mut job = Self { graph: ExecutionGraph::new(Arc::new(plan), JobId(7)), ran: Vec::new() };
        job.apply(Event::Submitted);
        job
    }

    pub(crate) fn apply(&mut self, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.graph.apply(event, 1_000, &mut effects);
        effects
    }

    fn index(&self, name: &str) -> StageIndex {
        self.graph.plan().stage_named(name).unwrap_or_else(|| panic!("there is no stage {name}"))
    }

    fn name(&self, stage: StageIndex) -> String {
        self.graph.plan().stages[stage.0 as usize].name.clone()
    }

    /// The names of stages with ready tasks.
    pub(crate) fn ready(&self) -> Vec<String> {
        self.graph.ready().map(|ready| self.name(ready.stage)).collect()
    }

    pub(crate) fn state(&self, name: &str) -> StageState {
        self.graph.stage(self.index(name)).unwrap().state
    }

    pub(crate) fn states(&self) -> BTreeMap<String, StageState> {
        self.graph.stages().map(|(index, record)| (self.name(index), record.state)).collect()
    }

    pub(crate) fn job_state(&self) -> JobState {
        self.graph.job().state
    }

    /// Assigns all ready tasks of a stage, and answers them.
    pub(crate) fn assign(&mut self, name: &str) -> Vec<(TaskId, u32)> {
        let on = ExecutorKey { id: "a".to_owned(), incarnation: 1 };
        let effects = self.apply(Event::Assigned { stage: self.index(name), on, count: u32::MAX });
        self.ran.push(name.to_owned());
        let launched = effects.iter().filter_map(|effect| match effect {
            Effect::Launch { task, attempt, .. } => Some((*task, *attempt)),
            _ => None,
        });
        launched.collect()
    }

    pub(crate) fn end(&mut self, tasks: Vec<(TaskId, u32)>, outcome: Outcome) {
        for (task, attempt) in tasks {
            let by = ExecutorKey { id: "a".to_owned(), incarnation: 1 };
            let end = AttemptEnd {
                outcome,
                started_at: 1_000,
                finished_at: 1_000,
                exit: Exit::Code(1),
                message: "as told".to_owned(),
                unreadable: Vec::new(),
            };
            self.apply(Event::AttemptFinished { task, attempt, by, end });
        }
    }

    /// Runs all ready tasks of a stage to their end.
    pub(crate) fn run(&mut self, name: &str, succeeds: bool) {
        let tasks = self.assign(name);
        assert!(!tasks.is_empty(), "{name} has nothing ready");
        self.end(tasks, outcome(succeeds));
    }

    /// Runs whatever is ready, until nothing is; these stages fail.
    pub(crate) fn run_all(&mut self, failing: &[&str]) {
        let failing: BTreeSet<&str> = failing.iter().copied().collect();
        while let Some(name) = self.ready().first().cloned() {
            self.run(&name, !failing.contains(name.as_str()));
        }
    }

    /// Asks for a retry, and forgets what ran before.
    pub(crate) fn retry(&mut self) {
        self.apply(Event::RetryRequested);
        self.ran.clear();
    }

    /// As a new owner reads it from the store.
    pub(crate) fn taken_over(&self) -> Self {
        let graph = ExecutionGraph::restore(Arc::clone(self.graph.plan()), JobId(7), [self.graph.snapshot()]).unwrap();
        assert_eq!(graph.snapshot(), self.graph.snapshot());
        Self { graph, ran: self.ran.clone() }
    }
}

pub(crate) fn outcome(succeeds: bool) -> Outcome {
    if succeeds {
        Outcome::Succeeded(Output { bytes: 1, checksum: 1, files: 1 })
    } else {
        Outcome::Failed(FailureClass::Failed)
    }
}
