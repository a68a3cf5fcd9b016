//! The model of a job's spec.

use std::collections::BTreeMap;
use std::time::Duration;

use super::after::AfterJob;
use super::placement::Placement;

/// One immutable job.
#[derive(Debug, Clone, PartialEq)]
pub struct JobSpec {
    /// Shown everywhere; need not be unique.
    pub name: String,
    /// The tenant; "default" when not given.
    pub namespace: String,
    /// The path of the group that it is in, as [`GroupPath::as_str`](crate::groups::GroupPath::as_str) has it; empty: the root.
    pub group: String,
    /// Jobs whose ends it waits for before anything of it begins.
    pub after_jobs: Vec<AfterJob>,
    /// Free to use.
    pub labels: BTreeMap<String, String>,
    /// Higher goes first inside a namespace; a point is worth an hour of waiting.
    pub priority: i32,
    /// For every task of every stage; a stage's own `env` wins.
    pub env: BTreeMap<String, String>,
    /// Of the whole job, from its first task's start.
    pub timeout: Option<Duration>,
    /// When what an executor had is run elsewhere because it is out of reach; `None`: as the cluster says.
    pub lost_after: Option<LostAfter>,
    /// How many of its tasks may run at the same time, of all stages; `None`: as many as there is room for.
    pub max_running: Option<u32>,
    /// On which executors its tasks may run; a stage's own word wins.
    pub placement: Placement,
    /// Inputs that it reads from the job that it is a stage of; its stages name them in their `inputs`. A job that takes some
    /// cannot run alone.
    pub takes: Vec<String>,
    /// Whose output is read by who reads the stage that this job is.
    pub outputs: Outputs,
    /// In any order; names are unique. None at all is a job that is successful at once.
    pub stages: Vec<StageSpec>,
}

/// What a job leaves behind for the job that it is a stage of.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Outputs {
    /// Nothing that could be read.
    #[default]
    None,
    /// The output of this stage.
    Of(String),
    /// The outputs of several stages, each in a directory of this name.
    Named(BTreeMap<String, String>),
}

/// How long a job waits for an executor that is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LostAfter {
    /// For so long; then what it had runs elsewhere.
    Time(Duration),
    /// Until it comes back, or an operator says that it never will.
    Never,
}

/// One stage: the same work, many times.
#[derive(Debug, Clone, PartialEq)]
pub struct StageSpec {
    /// Unique in the job. In an expanded spec: its [path](super::StagePath) as text.
    pub name: String,
    /// What one task does, or which job it is.
    pub work: Work,
    /// How many tasks, and what tells them apart.
    pub tasks: Tasks,
    /// Upstream stages whose output is read.
    pub inputs: Vec<Input>,
    /// Upstream stages that are only waited for.
    pub after: Vec<String>,
    /// On which outcome of the upstream stages this one runs.
    pub when: When,
    /// On top of the job's.
    pub env: BTreeMap<String, String>,
    /// Of one task.
    pub resources: Resources,
    /// On top of the job's.
    pub placement: Placement,
    /// How often an attempt may fail, by class.
    pub retries: Retries,
    /// Of one attempt.
    pub timeout: Option<Duration>,
    /// Between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// Whether a second run gives the same output. If not, all consumers of an output that was made again run again.
    pub deterministic: bool,
    /// After how many failed tasks no further ones are started; `None`: never.
    pub stop_after: Option<u32>,
}

/// What one task does, or which job the stage is.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A process.
    Process(Run),
    /// A job, in whose place there are its own stages between two gates once the spec is [expanded](super::expand()).
    Job(Nested),
    /// One of those two. Only expansion makes them; they have no tasks.
    Gate(Gate),
}

/// A stage that is a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Nested {
    /// Which one.
    pub source: Source,
    /// Values of its parameters.
    pub with: Arguments,
}

/// Where the job comes from that a stage is.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// The namespace has a definition of that name.
    Named {
        /// The definition's.
        name: String,
        /// `None`: the latest.
        revision: Option<u32>,
    },
    /// It stands in the spec itself.
    Inline(Box<JobSpec>),
}

/// What stands for a nested job's borders among the stages of an expanded spec: its begin, its own stages, its end, in this
/// order and without anything in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Gate {
    /// Waits for what the nested job waits for.
    Begin,
    /// Waits for everything inside.
    End,
}

/// Values of parameters, by name.
pub type Arguments = BTreeMap<String, Argument>;

/// A value, as it was written: `1.10` stays `1.10`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Argument {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Argument>),
    /// A map.
    Map(BTreeMap<String, Argument>),
    /// From a command line: the parameter's type says how to read it.
    Word(String),
    /// The value of a parameter that has none, in a spec that is only checked: any value.
    Open,
}

/// What a process runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Run {
    /// A program and its arguments, without a shell.
    Argv(Vec<String>),
    /// A script for an interpreter.
    Script {
        /// The text.
        text: String,
        /// The interpreter's argv, to which the script's path is appended. Default `["/bin/sh", "-e"]`.
        shell: Vec<String>,
    },
}

/// The tasks of a stage.
#[derive(Debug, Clone, PartialEq)]
pub enum Tasks {
    /// Tasks `0..n`.
    Count(u32),
    /// A task for each item, which it sees as `MUSTER_ITEM`.
    Items(Vec<String>),
}

impl Tasks {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u32 {
        match self {
            Self::Count(n) => *n,
            Self::Items(items) => u32::try_from(items.len()).unwrap_or(u32::MAX),
        }
    }
}

/// An upstream stage whose output is read.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its name.
    pub stage: String,
    /// Which part of its output. What a nested job takes is read as its own stages say.
    pub kind: InputKind,
    /// What it is called by those who read it, if that is not the stage's own name: the way to it below `MUSTER_INPUT_DIR`; in
    /// a stage that is a job, the name under which that job takes it.
    pub seen_as: Vec<String>,
}

impl Input {
    /// Of a stage that is called by its own name.
    #[must_use]
    pub fn of(stage: impl Into<String>, kind: InputKind) -> Self {
        Self { stage: stage.into(), kind, seen_as: Vec::new() }
    }
}

/// Which part of an upstream stage's output a task waits for and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum InputKind {
    /// Waits for the whole stage, reads every output.
    All,
    /// Task i waits for and reads task i.
    Each,
    /// Waits for the whole stage; task j reads part j of every output.
    Shuffle,
}

/// On which outcome of its upstream stages a stage runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum When {
    /// All upstream stages were successful.
    OnSuccess,
    /// All upstream stages are over and at least one was not successful.
    OnFailure,
    /// All upstream stages are over, whatever became of them, even after a cancel.
    Always,
}

/// Resources of one task, or of one executor.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Named countable ones, such as gpu.
    pub named: BTreeMap<String, u32>,
}

/// The variable in which a task finds what it has of a named resource: what no shell takes in a name becomes `_`.
#[must_use]
pub fn resource_variable(resource: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    format!("MUSTER_RESOURCE_{}", resource.chars().map(plain).collect::<String>())
}

/// Budgets of failed attempts by class: how many retries each class is worth. Only a task's own failures count
/// against `failed`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Retries {
    /// Exit code other than 0, a signal, or a program that could not be started. Default 0.
    pub failed: u8,
    /// Default 0.
    pub timed_out: u8,
    /// Default 0.
    pub out_of_memory: u8,
    /// Default 10. A task that keeps losing its executors ends as failed.
    pub executor_lost: u8,
    /// Default 255: a refusal costs nothing but the time.
    pub launch_refused: u8,
    /// Default 10.
    pub input_unreadable: u8,
    /// Before the first retry; doubles each time. Default 1 s.
    pub backoff: Duration,
    /// At most. Default 60 s.
    pub backoff_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            failed: 0,
            timed_out: 0,
            out_of_memory: 0,
            executor_lost: 10,
            launch_refused: 255,
            input_unreadable: 10,
            backoff: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}
