//! What `muster run` and `muster submit` take: a spec's file, or the name of a definition.

use std::path::PathBuf;

use clap::Args;
use muster_client::{Client, Error, Submitted, v1};
use muster_graph::spec::{AfterJob, Argument, Format};

use crate::context::Console;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::quantity;
use crate::specification::SpecFile;

/// What to run, and with what.
#[derive(Debug, Args)]
pub(crate) struct Runnable {
    /// The spec: .yaml, .toml or .json; - for YAML or JSON on standard input; or a definition: NAME or NAME@REVISION
    #[arg(value_name = "FILE|NAME")]
    what: PathBuf,
    /// Give a parameter a value; may be given several times
    ///
    /// A list is written as a,b or as JSON.
    #[arg(short, long = "param", value_parser = quantity::pair, value_name = "NAME=VALUE")]
    params: Vec<(String, String)>,
    /// Set a variable for every task, over the spec's own `env`; may be given several times
    ///
    /// A stage's `env` still wins.
    #[arg(short, long, value_parser = quantity::pair, value_name = "KEY=VALUE")]
    env: Vec<(String, String)>,
    /// Where the definition is [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The group that the job gets into, by its path, over the `group` of the spec or definition
    #[arg(long, value_name = "PATH")]
    group: Option<String>,
    /// Begin only when another job has ended, beside those that the spec or definition names; may be given several times
    ///
    /// Its success is waited for, or with `:failure` that it fails or is cancelled, or with `:any` either. If it ends otherwise, the
    /// job is cancelled.
    #[arg(long, value_name = "JOB[:END]")]
    after: Vec<AfterJob>,
}

/// What is sent to a cluster.
#[derive(Debug)]
pub(crate) enum Work {
    /// A spec.
    Spec(Box<v1::JobSpec>),
    /// A definition that the cluster has.
    Definition(Box<v1::RunDefinitionRequest>),
}

impl Runnable {
    /// Reads the file, if it is one.
    pub(crate) fn read(&self, color: bool) -> Result<Work, Failure> {
        let mut given = std::collections::BTreeMap::new();
        for (name, value) in &self.params {
            if given.insert(name.clone(), value.clone()).is_some() {
                return Err(
                    Failure::usage(format!("the parameter {name} is given twice")).help("a list is written a,b")
                );
            }
        }
        let is_file = self.what.as_os_str() == "-" || Format::of_path(&self.what).is_some();
        match self.what.to_str() {
            Some(name) if !is_file => {
                let (name, revision) = revision_of(name)?;
                let word = |text| v1::Argument { value: Some(v1::argument::Value::Word(text)) };
                Ok(Work::Definition(Box::new(v1::RunDefinitionRequest {
                    namespace: self.namespace.clone().unwrap_or_default(),
                    name,
                    revision,
                    arguments: given.into_iter().map(|(name, text)| (name, word(text))).collect(),
                    env: self.env.iter().cloned().collect(),
                    after_jobs: self.after_jobs().collect(),
                    group: self.group.as_deref().map(plain).unwrap_or_default().to_owned(),
                    ..Default::default()
                })))
            }
            _ if self.namespace.is_some() => {
                Err(Failure::usage("--namespace says where a definition is, and this is a file")
                    .help("write `namespace` into the spec"))
            }
            _ => {
                let arguments = given.into_iter().map(|(name, text)| (name, Argument::Word(text))).collect();
                let spec = SpecFile::open(&self.what)?.read_with(&arguments, self.env.clone(), color)?;
                let mut spec: v1::JobSpec = (&spec).into();
                spec.after_jobs.extend(self.after_jobs());
                if let Some(group) = &self.group {
                    spec.group = plain(group).to_owned();
                }
                Ok(Work::Spec(Box::new(spec)))
            }
        }
    }

    fn after_jobs(&self) -> impl Iterator<Item = v1::AfterJob> {
        self.after.iter().map(v1::AfterJob::from)
    }

    /// Makes it fit for a cluster that is there for this one job: such a cluster has no definitions, and no groups to get into.
    pub(crate) fn for_no_cluster(&self, work: &mut Work, console: Console) -> Result<(), Failure> {
        const CLUSTER: &str = "name the cluster with --schedulers or MUSTER_SCHEDULERS";
        match work {
            Work::Definition(request) => Err(Failure::usage(format!(
                "{} is no file, and there is no cluster to look a definition up in",
                request.name
            ))
            .help(format!("name a spec .yaml, .toml or .json; or {CLUSTER}"))),
            Work::Spec(spec) if !spec.after_jobs.is_empty() => {
                let job = spec.after_jobs.first().map(|after| after.job_id.as_str()).unwrap_or_default();
                Err(Failure::usage(format!("there is no cluster that could have the job {job}, which is waited for"))
                    .help(CLUSTER))
            }
            Work::Spec(spec) if spec.group.is_empty() => Ok(()),
            Work::Spec(spec) if self.group.is_some() => {
                Err(Failure::usage(format!("--group: there is no cluster that could have the group {}", spec.group))
                    .help(CLUSTER))
            }
            Work::Spec(spec) => {
                console.note(&format!("the job runs by itself, and not in its group {}", spec.group));
                spec.group.clear();
                Ok(())
            }
        }
    }
}

/// A path as it is on the wire: without a `/` before it.
fn plain(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

impl Work {
    /// For people.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Spec(spec) => &spec.name,
            Self::Definition(request) => &request.name,
        }
    }

    /// Makes a job of it.
    pub(crate) async fn submit(&self, client: &Client, key: Option<String>) -> Result<Submitted, Failure> {
        match self {
            Self::Spec(spec) => client.submit((**spec).clone(), key).await.map_err(|error| match error {
                Error::NotFound(_) if !spec.group.is_empty() => Failure::about_group(error),
                other => other.into(),
            }),
            Self::Definition(request) => {
                let mut request = (**request).clone();
                request.idempotency_key = key.unwrap_or_default();
                client.run_definition(request).await.map_err(missing)
            }
        }
    }
}

/// `NAME` or `NAME@REVISION`; 0: the newest.
pub(crate) fn revision_of(text: &str) -> Result<(String, u32), Failure> {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match text.rsplit_once('@').filter(|(_, digits)| is_number(digits)) {
        None => Ok((text.to_owned(), 0)),
        Some((name, digits)) => match digits.parse::<u32>() {
            Ok(revision) if revision > 0 => Ok((name.to_owned(), revision)),
            _ => Err(Failure::usage(format!("{digits} is no revision")).help("revisions are 1, 2, 3 and so on")),
        },
    }
}

/// An error about a definition: a missing one is not looked for among jobs.
pub(crate) fn missing(error: Error) -> Failure {
    match error {
        Error::NotFound(message) => Failure::new(Exit::NotFound, message)
            .help("`muster definitions` lists those that there are; a spec's file is named .yaml, .toml or .json"),
        other => other.into(),
    }
}
