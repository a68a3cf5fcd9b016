//! `muster watch`

use clap::Args;
use muster_client::{JobId, is_finished};

use super::exit_of;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views::{Job, JobAtLength};
use crate::output::{Form, Output};
use crate::progress::Progress;

/// Follow a job until it is finished; with json, jsonl or name a line for each change
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// The job
    #[arg(value_name = "ID")]
    job: JobId,
}

impl Watch {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let mut watch = client.watch_job(self.job);
        let people = context.output.is_for_people();
        // A stream of documents that are spread over many lines is of use to nobody.
        let form = if context.output.form == Form::Json { Form::Jsonl } else { context.output.form };
        let mut progress = if people { Progress::new(context.console) } else { Progress::silent() };
        let mut exit = Exit::Failed;
        while let Some(view) = watch.next().await? {
            progress.update(&view);
            let finished = is_finished(&view);
            if finished {
                exit = exit_of(&view);
                progress.finish();
            }
            if !people {
                Output { form, ..context.output_now() }.one(&JobAtLength::from(view))?;
            } else if finished {
                context.output_now().list(&[Job::from(view)])?;
            }
        }
        Ok(exit)
    }
}
