//! `muster explain`

use clap::Args;
use muster_client::v1::ExplainRequest;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::explain::Explanation;
use crate::reference::Reference;

/// Say why tasks are not running, and what would make them run
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The job, of which each stage that is not over is explained; or just a stage, or a task
    #[arg(value_name = "ID[/STAGE[/TASK]]")]
    reference: Reference,
    /// Of a stage, explain each task that is not over
    #[arg(short, long)]
    tasks: bool,
    /// At most so many stages, or tasks
    #[arg(short, long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
}

impl Explain {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let Reference { job, stage, index } = self.reference;
        if self.tasks && stage.is_none() {
            return Err(Failure::usage("--tasks: say of which stage")
                .help(format!("write `muster explain {job}/STAGE --tasks`; `muster job {job}` lists the stages")));
        }
        let at_length = stage.is_some();
        let tasks = self.tasks && index.is_none();
        let stage = stage.unwrap_or_default();
        let request = ExplainRequest { job_id: job.to_string(), stage, index, tasks, ..Default::default() };
        let client = context.client().await?;
        // Without tasks the answer about a stage is one page.
        let told = if at_length && !tasks {
            client.explain_page(request).await?
        } else {
            client.explain(request, self.limit.max(1)).await?
        };
        let more = !told.next_page_token.is_empty();
        context.output_now().one(&Explanation { at_length, ..told.into() })?;
        if more && context.output.is_for_people() {
            let what = if at_length { "tasks" } else { "stages" };
            context.console.note(&format!("There are more than {} {what}: raise --limit to see them.", self.limit));
        }
        Ok(Exit::Success)
    }
}
