//! `muster outputs`

use std::path::{Path, PathBuf};

use clap::Args;
use muster_client::{Client, v1};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::views::{Downloaded, TaskOutput};
use crate::reference::Reference;

/// List what tasks left behind, or bring it here
///
/// Without a stage: the outputs of the stages whose output no other stage reads.
#[derive(Debug, Args)]
pub(crate) struct Outputs {
    /// The job, stage or task
    #[arg(value_name = "ID[/STAGE[/TASK]]")]
    reference: Reference,
    /// Bring them to DIR/STAGE/TASK/…, each verified and there whole or not at all
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

impl Outputs {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let Reference { job, stage, index } = &self.reference;
        let mut found = client.list_outputs(*job, stage.as_deref()).await?;
        found.retain(|output| index.is_none_or(|index| index == output.index));
        if found.is_empty() && index.is_some() {
            return Err(Failure::new(Exit::NotFound, format!("task {} has no output", self.reference))
                .help("a task has one when it was successful; `muster job ID/STAGE/TASK` shows what became of it"));
        }
        match &self.to {
            None => {
                let id = job.to_string();
                let rows: Vec<TaskOutput> = found.into_iter().map(|output| TaskOutput::new(&id, output)).collect();
                context.output.list(&rows)?;
            }
            Some(folder) => context.output.list(&bring(&client, &self.reference, found, folder).await?)?,
        }
        Ok(Exit::Success)
    }
}

/// Brings outputs into `folder`, one after the other: the network is the limit, and an error names one of them.
pub(crate) async fn bring(
    client: &Client,
    reference: &Reference,
    outputs: Vec<v1::OutputView>,
    folder: &Path,
) -> Result<Vec<Downloaded>, Failure> {
    let mut brought = Vec::new();
    for output in outputs {
        // Nothing to bring is not a directory to make.
        if output.output.unwrap_or_default().files == 0 {
            continue;
        }
        let directory = folder.join(folder_name(&output.stage)).join(output.index.to_string());
        let download = client.download(reference.job, &output.stage, output.index, &directory).await?;
        brought.push(Downloaded {
            job: reference.job.to_string(),
            stage: output.stage,
            index: output.index,
            directory: directory.display().to_string(),
            files: download.files,
            bytes: download.bytes,
        });
    }
    Ok(brought)
}

/// A stage's name as the name of one directory: `%` and `/`, and a dot at the beginning, as `%` and two digits. No two
/// names become one, and none leads elsewhere.
fn folder_name(stage: &str) -> String {
    let mut name = String::new();
    for (place, c) in stage.char_indices() {
        match c {
            '%' | '/' | '\0' => name.push_str(&format!("%{:02x}", u32::from(c))),
            '.' if place == 0 => name.push_str("%2e"),
            other => name.push(other),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stages_name_is_one_directory_that_leads_nowhere_else() {
        assert_eq!(folder_name("map"), "map");
        assert_eq!(folder_name("a/b"), "a%2fb");
        assert_eq!(folder_name("a%2fb"), "a%252fb");
        assert_eq!(folder_name(".."), "%2e.");
        assert_eq!(folder_name("v1.2"), "v1.2");
    }
}
