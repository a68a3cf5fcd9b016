//! `muster submit`

use clap::Args;

use super::exit_of;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::answers::Submission;
use crate::output::views::JobAtLength;
use crate::progress::Progress;
use crate::runnable::Runnable;

/// Submit a job; when its id is printed (alone with -o name), the job is committed
#[derive(Debug, Args)]
pub(crate) struct Submit {
    #[command(flatten)]
    what: Runnable,
    /// The same key with the same spec gives the same job, however often it is submitted (for 7 days)
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until the job is finished; the exit code is the job's
    #[arg(short, long)]
    wait: bool,
}

impl Submit {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let work = self.what.read(context.console.color)?;
        let client = context.client().await?;
        let submitted = work.submit(&client, self.idempotency_key).await?;
        let submission = Submission {
            id: submitted.job.to_string(),
            existed: submitted.existed,
            idempotency_key: submitted.idempotency_key,
        };
        if !self.wait {
            context.output.one(&submission)?;
            return Ok(Exit::Success);
        }
        context.console.note(&format!("job {}", submission.id));
        let mut progress = Progress::new(context.console);
        let mut watch = client.watch_job(submitted.job);
        let mut last = None;
        while let Some(view) = watch.next().await? {
            progress.update(&view);
            last = Some(view);
        }
        progress.finish();
        let view = last.ok_or_else(|| Failure::internal(format!("the watch of job {} told nothing", submission.id)))?;
        let exit = exit_of(&view);
        context.output_now().one(&JobAtLength::from(view))?;
        Ok(exit)
    }
}
