//! `muster lint`

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use muster_graph::spec::{JobSpec, NoLibrary, Outline, Problems, expand};
use serde::Serialize;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Form;
use crate::specification::{SpecFile, plural};

/// Check spec files without a cluster and show every problem, with its place and a remedy
///
/// What depends on parameters that have no default is left open.
///
/// Exit code 0: no problems; 1: problems; 2: a file cannot be read.
#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// The files: .yaml, .toml or .json; - for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// A problem, in JSON.
#[derive(Debug, Serialize)]
struct Found {
    file: String,
    line: Option<u32>,
    column: Option<u32>,
    field: Option<String>,
    message: String,
    help: Option<String>,
}

/// The spec, if the jobs in it fit together. What definitions say is not known here, nor what parameters will be.
fn with_jobs((spec, is_whole): (JobSpec, bool)) -> Result<JobSpec, Problems> {
    let stands_alone = is_whole && Outline::of(&spec).references.is_empty() && spec.takes.is_empty();
    if stands_alone {
        expand(spec.clone(), &NoLibrary)?;
    }
    Ok(spec)
}

impl Lint {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut out = std::io::stdout().lock();
        let mut all = Vec::new();
        for path in &self.files {
            let file = SpecFile::open(path)?;
            let problems = match file.sketch().and_then(with_jobs) {
                Ok(spec) => {
                    let tasks: u64 = spec.stages.iter().map(|stage| u64::from(stage.tasks.count())).sum();
                    context.console.note(&format!(
                        "{}: good: job '{}', {} stage{}, {tasks} task{}",
                        file.name(),
                        spec.name,
                        spec.stages.len(),
                        plural(spec.stages.len()),
                        plural(usize::try_from(tasks).unwrap_or(usize::MAX)),
                    ));
                    continue;
                }
                Err(problems) => problems,
            };
            if context.output.is_for_people() {
                out.write_all(file.render(&problems, context.output.color).as_bytes())?;
            }
            all.extend(problems.into_iter().map(|problem| Found {
                file: file.name().to_owned(),
                line: problem.place.map(|place| place.line),
                column: problem.place.map(|place| place.column),
                field: (!problem.field.is_empty()).then_some(problem.field),
                message: problem.message,
                help: (!problem.help.is_empty()).then_some(problem.help),
            }));
        }
        match context.output.form {
            Form::Table | Form::Wide => {}
            Form::Json => {
                serde_json::to_writer_pretty(&mut out, &all).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Form::Jsonl => {
                for found in &all {
                    serde_json::to_writer(&mut out, found).map_err(std::io::Error::from)?;
                    writeln!(out)?;
                }
            }
            // The name of a problem is its place, as compilers and editors write it.
            Form::Name => {
                for found in &all {
                    writeln!(out, "{}:{}:{}", found.file, found.line.unwrap_or(1), found.column.unwrap_or(1))?;
                }
            }
        }
        out.flush()?;
        if all.is_empty() {
            return Ok(Exit::Success);
        }
        context.console.note(&format!("{} problem{}", all.len(), plural(all.len())));
        Ok(Exit::Failed)
    }
}
