//! `muster completions`

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::exit::Exit;
use crate::failure::Failure;

/// Print a completion script for a shell
///
/// For bash, for instance: `muster completions bash > ~/.local/share/bash-completion/completions/muster`
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Exit, Failure> {
        // Into memory first: the generator panics when it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "muster", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(Exit::Success)
    }
}
