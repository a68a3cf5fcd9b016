//! `muster man`

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_mangen::Man as Page;

use crate::arguments::Arguments;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

/// Print the manual page of muster, or write the pages of all verbs into a directory
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write muster.1, muster-run.1 and so on there; the directory is made if it is missing
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let Some(folder) = self.to else {
            let mut page = Vec::new();
            Page::new(Arguments::command()).render(&mut page)?;
            std::io::stdout().lock().write_all(&page)?;
            return Ok(Exit::Success);
        };
        let unable = |path: &Path| {
            let path = path.display().to_string();
            move |error: std::io::Error| Failure::new(Exit::Failed, format!("{path} cannot be written: {error}"))
        };
        std::fs::create_dir_all(&folder).map_err(unable(&folder))?;
        clap_mangen::generate_to(Arguments::command(), &folder).map_err(unable(&folder))?;
        context.console.note(&format!("The manual pages are in {}.", folder.display()));
        Ok(Exit::Success)
    }
}
