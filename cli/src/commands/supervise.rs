//! `muster supervise`: the process in which an executor starts its tasks. Executors start it themselves.

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;

/// Start and end tasks for an executor, which starts this by itself
#[derive(Debug, Args)]
pub(crate) struct Supervise {}

impl Supervise {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        muster_executor::supervisor::run()
            .map_err(|error| Failure::new(Exit::Failed, format!("the supervisor ended: {error}")))?;
        Ok(Exit::Success)
    }
}
