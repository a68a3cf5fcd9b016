//! Where the jobs come from that stages name.
//!
//! [`expand`](super::expand()) asks for them in two steps. First it walks [`Outline`]s, which do not depend on arguments: so it
//! knows how large the whole becomes, and that nothing contains itself, before anything is allocated. Then it asks for each
//! job with its arguments, each combination once.

use std::sync::Arc;

use super::model::{Arguments, JobSpec, Source, Work};
use super::problem::Problems;

/// Definitions, all as of one moment: while a spec is expanded, the same question has the same answer.
pub trait Library {
    /// Looks a definition up; `None`: its latest revision.
    ///
    /// # Errors
    /// There is none: what is wrong, and what to do about it.
    fn find(&self, name: &str, revision: Option<u32>) -> Result<Found, Unknown>;

    /// A definition's job with these values of its parameters. Its `name` does not matter.
    ///
    /// # Errors
    /// All problems: values that are missing, unknown or do not fit, and what is wrong with the job that they make.
    fn instantiate(&self, name: &str, revision: u32, with: &Arguments) -> Result<JobSpec, Problems>;
}

/// What a definition looks like from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which revision it is.
    pub revision: u32,
    /// Its stages and what it refers to.
    pub outline: Arc<Outline>,
}

/// There is no such definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// What of a job is the same for all arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// How many stages it becomes without those of the definitions that it refers to: its own, those of jobs that stand in it,
    /// and two gates for each stage that is a job.
    pub stages: u64,
    /// How deep jobs stand in it; 0: none does.
    pub depth: u32,
    /// The definitions that it refers to, one for each stage that names one.
    pub references: Vec<Reference>,
}

/// A stage that names a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The definition's name.
    pub name: String,
    /// `None`: the latest.
    pub revision: Option<u32>,
    /// How deep it stands: 1 for a stage of the job itself, 2 for one of a job that stands in it.
    pub depth: u32,
}

impl Outline {
    /// Of a job as it is written.
    #[must_use]
    pub fn of(spec: &JobSpec) -> Self {
        let mut outline = Self::default();
        let mut left = vec![(spec, 1u32)];
        while let Some((spec, depth)) = left.pop() {
            for stage in &spec.stages {
                let Work::Job(nested) = &stage.work else {
                    outline.stages += 1;
                    continue;
                };
                outline.stages += 2;
                outline.depth = outline.depth.max(depth);
                match &nested.source {
                    Source::Inline(inner) => left.push((inner, depth + 1)),
                    Source::Named { name, revision } => {
                        outline.references.push(Reference { name: name.clone(), revision: *revision, depth });
                    }
                }
            }
        }
        outline
    }
}

/// No definitions at all: for specs that stand on their own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoLibrary;

impl Library for NoLibrary {
    fn find(&self, name: &str, _: Option<u32>) -> Result<Found, Unknown> {
        Err(Unknown {
            message: format!("there is no definition `{name}` here"),
            help: "write the job itself under `job`".to_owned(),
        })
    }

    fn instantiate(&self, _: &str, _: u32, _: &Arguments) -> Result<JobSpec, Problems> {
        Err(Problems(Vec::new()))
    }
}
