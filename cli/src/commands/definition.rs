//! `muster definition`

use std::io::Write as _;

use clap::Args;
use muster_client::v1;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::definition::DefinitionAtLength;
use crate::runnable::{missing, revision_of};

/// Show a definition: its parameters, what it is made of and who uses it, and its text
#[derive(Debug, Args)]
pub(crate) struct Definition {
    /// The definition: NAME, or NAME@REVISION for one that is not the newest
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it is [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Print only its text, as it was written
    #[arg(long)]
    text: bool,
}

impl Definition {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let (name, revision) = revision_of(&self.name)?;
        let namespace = self.namespace.unwrap_or_default();
        let client = context.client().await?;
        let wanted = v1::GetDefinitionRequest { namespace, name, revision };
        let view = client.definition(wanted).await.map_err(missing)?;
        if self.text {
            std::io::stdout().lock().write_all(view.text.unwrap_or_default().text.as_bytes())?;
            return Ok(Exit::Success);
        }
        context.output.one(&DefinitionAtLength::from(view))?;
        Ok(Exit::Success)
    }
}
