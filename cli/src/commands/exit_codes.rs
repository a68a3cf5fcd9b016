//! `muster exit-codes`, and so `muster help exit-codes`

use std::io::Write as _;

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;

/// Say what the exit codes mean
#[derive(Debug, Args)]
#[command(after_help = Exit::table())]
pub(crate) struct ExitCodes {}

impl ExitCodes {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        writeln!(std::io::stdout().lock(), "{}", Exit::table())?;
        Ok(Exit::Success)
    }
}
