//! `muster schedulers`

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views::Scheduler;

/// List the cluster's schedulers that are alive
#[derive(Debug, Args)]
pub(crate) struct Schedulers {}

impl Schedulers {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let found = context.client().await?.list_schedulers().await?;
        context.output.list(&found.into_iter().map(Scheduler::from).collect::<Vec<_>>())?;
        Ok(Exit::Success)
    }
}
