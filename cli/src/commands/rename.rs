//! `muster rename`

use clap::Args;
use muster_client::v1;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::runnable::missing;

/// Call a definition differently; its revisions go with it, and jobs that were made of it are not touched
#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// The definition
    #[arg(value_name = "NAME")]
    name: String,
    /// What it is to be called; nothing else may be called so
    #[arg(value_name = "NEW-NAME")]
    to: String,
    /// Where it is [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Though others refer to it by the old name
    #[arg(long)]
    force: bool,
}

impl Rename {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let namespace = self.namespace.unwrap_or_default();
        let request = v1::RenameDefinitionRequest { namespace, name: self.name, to: self.to, force: self.force };
        let used_by = client.rename_definition(request).await.map_err(missing)?;
        if !used_by.is_empty() {
            context.console.note(&format!("still refer to the old name: {}", used_by.join(", ")));
        }
        Ok(Exit::Success)
    }
}
