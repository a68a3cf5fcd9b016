//! From a spec with jobs in it to one flat spec: each stage that is a job gives way to that job's own stages between two
//! gates.
//!
//! A stage's name becomes its [path](super::StagePath). The gates carry what holds for the job as a whole: the begin waits for
//! what the reference waits for, and stages inside that wait for nothing inside, or that run whatever became of what they wait for,
//! wait for the begin; the end waits for everything inside, and who waits for the reference waits for the end. Whoever reads the
//! reference reads the declared output stages, and what a job takes is read where it was made: only waits pass a gate, never data.
//!
//! Invariants: nothing is allocated for a job that is too large or contains itself (`measure`); recursion is as deep as jobs
//! are nested, which is limited; the time taken is linear in the outcome and in the definitions that it is made of.

mod edges;
mod measure;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::check::{check, check_expanded, env_bytes};
use super::draft::stage_field;
use super::finding::shown;
use super::library::Library;
use super::limits::{EDGES_MAX, EXPANDED_BYTES_MAX, ITEMS_BYTES_MAX, PROBLEMS_MAX, TASKS_PER_JOB_MAX, WORD_COST_BYTES};
use super::model::{
    Argument, Arguments, Gate, JobSpec, Nested, Outputs, Resources, Retries, Run, Source, StageSpec, Tasks, When, Work,
};
use super::path::StagePath;
use super::placement::Placement;
use super::problem::{Problem, Problems};
use edges::Scope;
pub use measure::measure;

/// A spec without jobs in it, and what it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Expanded {
    /// Every stage runs a process or is a gate. It compiles.
    pub spec: JobSpec,
    /// The definitions that it was made of, each once.
    pub made_of: Vec<Used>,
}

/// A definition, as it was when a spec was expanded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    /// Its name.
    pub name: String,
    /// Its revision.
    pub revision: u32,
}

/// Puts jobs in the place of the stages that name them. Checks everything: what comes out of it compiles.
///
/// # Errors
/// All problems of the spec; or, if it has none of its own, those of what it refers to, or of the whole.
pub fn expand(root: JobSpec, library: &dyn Library) -> Result<Expanded, Problems> {
    found(check(&root))?;
    if let Some(taken) = root.takes.first() {
        let message =
            format!("this job takes `{}` from the job that it is a stage of, so it cannot run alone", shown(taken));
        let help = "run a job with a stage that names this one under `job` and gives it its `inputs`";
        return Err(only(Problem { place: None, field: "takes".to_owned(), message, help: help.to_owned() }));
    }
    measure(&root, library).map_err(only)?;
    let mut expander = Expander {
        library,
        instances: BTreeMap::new(),
        used: BTreeSet::new(),
        stages: Vec::new(),
        bytes: 0,
        items: 0,
        edges: 0,
        tasks: 0,
        gave_up: false,
        problems: Vec::new(),
    };
    expander.job(&root, &Scope::default());
    found(expander.problems)?;
    let spec = JobSpec { stages: expander.stages, outputs: Outputs::None, ..root };
    found(check_expanded(&spec))?;
    Ok(Expanded { spec, made_of: expander.used.into_iter().collect() })
}

fn only(problem: Problem) -> Problems {
    Problems(vec![problem])
}

fn found(problems: Vec<Problem>) -> Result<(), Problems> {
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

struct Expander<'a> {
    library: &'a dyn Library,
    /// What the library answered, so that a job that is used a thousand times is read once.
    instances: BTreeMap<(String, u32, Arguments), Option<Arc<JobSpec>>>,
    used: BTreeSet<Used>,
    stages: Vec<StageSpec>,
    bytes: usize,
    items: usize,
    edges: usize,
    tasks: u64,
    /// Something is over its limit, and that was said.
    gave_up: bool,
    problems: Vec<Problem>,
}

/// A job that a stage is.
enum Child<'s> {
    Inline(&'s JobSpec),
    Defined(Arc<JobSpec>),
}

impl std::ops::Deref for Child<'_> {
    type Target = JobSpec;

    fn deref(&self) -> &JobSpec {
        match self {
            Child::Inline(spec) => spec,
            Child::Defined(spec) => spec,
        }
    }
}

impl Expander<'_> {
    /// Adds the stages of a job. Gives up once something is over its limit.
    fn job(&mut self, spec: &JobSpec, scope: &Scope) {
        let mut level = edges::Level::of(spec);
        for stage in &spec.stages {
            if self.problems.len() >= PROBLEMS_MAX || self.is_too_large(&stage.name, scope) {
                return;
            }
            match &stage.work {
                Work::Job(nested) => self.reference(&mut level, stage, nested, scope),
                Work::Process(_) | Work::Gate(_) => {
                    let (inputs, mut after) = self.inputs(&mut level, stage, scope);
                    after.extend(level.begin(stage, scope));
                    self.push(StageSpec {
                        name: scope.path.join(&stage.name).into_text(),
                        inputs,
                        after,
                        env: over(&scope.env, [&stage.env]),
                        placement: placed(&scope.placement, [&stage.placement]),
                        ..stage.clone()
                    });
                }
            }
        }
    }

    /// Adds the begin of a nested job, its stages, and its end.
    fn reference(&mut self, level: &mut edges::Level<'_>, stage: &StageSpec, nested: &Nested, scope: &Scope) {
        let path = scope.path.join(&stage.name);
        let Some(child) = self.child(stage, nested, &path) else { return };
        let takes = self.bindings(level, stage, &child, scope);
        // What a list of all that is inside will take.
        let ends: usize = child.stages.iter().map(|stage| path.as_str().len() + stage.name.len()).sum();
        self.bytes = self.bytes.saturating_add(ends + arguments_bytes(&nested.with));
        if self.is_too_large(&stage.name, scope) {
            return;
        }
        let begin = path.begin();
        let mut waits: Vec<String> = takes.values().flatten().map(|readable| readable.stage.clone()).collect();
        waits.extend(level.waits(stage, scope));
        waits.extend(level.begin(stage, scope));
        // Outputs of a reference are read beside waiting for it, and several may be bound to one name.
        let mut seen = BTreeSet::new();
        waits.retain(|name| seen.insert(name.clone()));
        self.push(gate(begin.clone(), Gate::Begin, stage.when, waits));
        let inside = Scope {
            env: over(&scope.env, [&stage.env, &child.env]),
            placement: placed(&scope.placement, [&stage.placement, &child.placement]),
            begin: Some(begin.clone()),
            takes,
            path: path.clone(),
        };
        self.job(&child, &inside);
        let own = child.stages.iter().map(|stage| path.join(&stage.name).into_text());
        self.push(gate(
            path.clone().into_text(),
            Gate::End,
            When::OnSuccess,
            std::iter::once(begin).chain(own).collect(),
        ));
    }

    fn push(&mut self, stage: StageSpec) {
        self.tasks += u64::from(stage.tasks.count());
        self.bytes = self.bytes.saturating_add(bytes(&stage));
        if let Tasks::Items(items) = &stage.tasks {
            self.items = self.items.saturating_add(words(items));
        }
        self.edges += stage.inputs.len() + stage.after.len();
        self.stages.push(stage);
    }

    /// The job that a stage is; none if that has problems, which are noted.
    fn child<'s>(&mut self, stage: &StageSpec, nested: &'s Nested, path: &StagePath) -> Option<Child<'s>> {
        let (name, revision) = match &nested.source {
            Source::Inline(spec) => return Some(Child::Inline(spec)),
            Source::Named { name, revision } => (name, *revision),
        };
        let revision = match self.library.find(name, revision) {
            Ok(found) => found.revision,
            // Looked up before: this happens only if the library changes its mind.
            Err(unknown) => {
                self.problem(path, "job", unknown.message, unknown.help);
                return None;
            }
        };
        let key = (name.clone(), revision, nested.with.clone());
        if let Some(known) = self.instances.get(&key) {
            // Its problems were told where it was named first.
            return known.clone().map(Child::Defined);
        }
        let problems = match self.library.instantiate(name, revision, &nested.with) {
            Ok(spec) => match check(&spec) {
                problems if problems.is_empty() => {
                    let spec = Arc::new(spec);
                    self.used.insert(Used { name: name.clone(), revision });
                    self.instances.insert(key, Some(Arc::clone(&spec)));
                    return Some(Child::Defined(spec));
                }
                problems => problems,
            },
            Err(problems) => problems.0,
        };
        self.instances.insert(key, None);
        for problem in problems {
            let at = if problem.field.is_empty() { String::new() } else { format!("{}: ", problem.field) };
            let message = format!(
                "revision {revision} of `{}`, used for `{}`: {at}{}",
                shown(name),
                shown(&stage.name),
                problem.message
            );
            self.problem(path, "job", message, problem.help);
        }
        None
    }

    fn problem(&mut self, path: &StagePath, key: &str, message: impl Into<String>, help: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let field = format!("{}.{key}", stage_field(path.as_str()));
            self.problems.push(Problem { place: None, field, message: message.into(), help: help.into() });
        }
    }

    /// Says so if there is more than a job may have.
    fn is_too_large(&mut self, stage: &str, scope: &Scope) -> bool {
        if self.gave_up {
            return true;
        }
        let over = if self.tasks > TASKS_PER_JOB_MAX {
            format!("more than {TASKS_PER_JOB_MAX} tasks (TASKS_PER_JOB_MAX)")
        } else if self.edges > EDGES_MAX {
            format!("more than {EDGES_MAX} inputs and afters (EDGES_MAX)")
        } else if self.bytes > EXPANDED_BYTES_MAX {
            format!("more than {} MiB of text (EXPANDED_BYTES_MAX)", EXPANDED_BYTES_MAX >> 20)
        } else if self.items > ITEMS_BYTES_MAX {
            format!("more than {} MiB of items (ITEMS_BYTES_MAX)", ITEMS_BYTES_MAX >> 20)
        } else {
            return false;
        };
        self.gave_up = true;
        let help = "name fewer jobs, or split the job";
        self.problem(&scope.path.join(stage), "job", format!("with the jobs in it, the job has {over}"), help);
        true
    }
}

fn gate(name: String, gate: Gate, when: When, after: Vec<String>) -> StageSpec {
    StageSpec {
        name,
        work: Work::Gate(gate),
        tasks: Tasks::Count(0),
        inputs: Vec::new(),
        after,
        when,
        env: BTreeMap::new(),
        resources: Resources::default(),
        placement: Placement::default(),
        retries: Retries::default(),
        timeout: None,
        grace: Duration::ZERO,
        deterministic: true,
        stop_after: None,
    }
}

/// Variables, later ones winning.
fn over<const N: usize>(
    under: &BTreeMap<String, String>,
    more: [&BTreeMap<String, String>; N],
) -> BTreeMap<String, String> {
    let all = std::iter::once(under).chain(more).flatten();
    all.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Words on placement, later ones winning as a stage's win over its job's.
fn placed<const N: usize>(under: &Placement, more: [&Placement; N]) -> Placement {
    more.into_iter().fold(under.clone(), |mut under, more| {
        under.require.extend(more.require.iter().map(|(label, rule)| (label.clone(), rule.clone())));
        Placement {
            require: under.require,
            prefer: more.prefer.clone().or(under.prefer),
            policy: more.policy.or(under.policy),
        }
    })
}

fn words(words: &[String]) -> usize {
    words.iter().map(|word| word.len() + WORD_COST_BYTES).sum()
}

/// What a stage costs of [`EXPANDED_BYTES_MAX`].
fn bytes(stage: &StageSpec) -> usize {
    let work = match &stage.work {
        Work::Process(Run::Argv(argv)) => words(argv),
        Work::Process(Run::Script { text, shell }) => text.len() + words(shell),
        Work::Job(_) | Work::Gate(_) => 0,
    };
    let inputs = stage.inputs.iter().map(|input| input.stage.len() + words(&input.seen_as) + WORD_COST_BYTES);
    work + stage.name.len() + inputs.sum::<usize>() + words(&stage.after) + env_bytes(&stage.env)
}

fn arguments_bytes(with: &Arguments) -> usize {
    with.iter().map(|(name, value)| name.len() + argument_bytes(value)).sum()
}

fn argument_bytes(argument: &Argument) -> usize {
    WORD_COST_BYTES
        + match argument {
            Argument::Null | Argument::Bool(_) | Argument::Open => 0,
            Argument::Number(text) | Argument::Text(text) | Argument::Word(text) => text.len(),
            Argument::List(items) => items.iter().map(argument_bytes).sum(),
            Argument::Map(entries) => arguments_bytes(entries),
        }
}
