//! `muster schema`

use std::io::Write as _;

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;

/// Print the JSON Schema of job specs, for editors
#[derive(Debug, Args)]
pub(crate) struct Schema {}

impl Schema {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        let mut out = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &muster_graph::spec::schema()).map_err(std::io::Error::from)?;
        writeln!(out)?;
        Ok(Exit::Success)
    }
}
