//! `muster definitions`

use clap::Args;

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::definition::Definition;

/// List the definitions, in the order of their names
#[derive(Debug, Args)]
pub(crate) struct Definitions {
    /// Only those of this namespace [default: all]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

impl Definitions {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let client = context.client().await?;
        let listed = client.list_definitions(self.namespace.as_deref()).await?;
        let listed: Vec<Definition> = listed.into_iter().map(Definition::from).collect();
        context.output.list(&listed)?;
        Ok(Exit::Success)
    }
}
