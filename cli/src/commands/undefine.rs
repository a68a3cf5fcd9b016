//! `muster undefine`

use clap::Args;
use muster_client::v1;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::runnable::missing;

/// Remove a definition with all of its revisions; jobs that were made of it are not touched
///
/// One that others refer to is removed only with --force: they can no longer be run. Should the name be defined again, its
/// revisions are numbered on.
#[derive(Debug, Args)]
pub(crate) struct Undefine {
    /// The definition
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it is [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Though others refer to it
    #[arg(long)]
    force: bool,
}

impl Undefine {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let namespace = self.namespace.unwrap_or_default();
        let request = v1::UndefineRequest { namespace, name: self.name, force: self.force };
        let used_by = client.undefine(request).await.map_err(missing)?;
        if !used_by.is_empty() {
            context.console.note(&format!("can no longer be run: {}", used_by.join(", ")));
        }
        Ok(Exit::Success)
    }
}
