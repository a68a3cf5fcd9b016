//! `muster executors`

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views::Executor;

/// List the cluster's executors: the machines that run tasks
#[derive(Debug, Args)]
pub(crate) struct Executors {}

impl Executors {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let found = context.client().await?.list_executors().await?;
        context.output.list(&found.into_iter().map(Executor::from).collect::<Vec<_>>())?;
        Ok(Exit::Success)
    }
}
