//! `muster define`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use muster_client::v1;

use super::export;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::definition::Defined;
use crate::specification::SpecFile;

/// Keep specs in the cluster, by their names: each becomes the next revision of its name, to be run with `muster run NAME`
///
/// All of one namespace, or none of them: one that is wrong, that refers to what there is not, or that would make a job
/// contain itself refuses the others too. They may refer to each other, in any order. What has not changed stays the revision that
/// it was. Files that a spec reads items from are read now.
#[derive(Debug, Args)]
pub(crate) struct Define {
    /// Specs (.yaml, .toml or .json; - for standard input), or bundles that `muster export` wrote
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Define {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let mut namespaces: BTreeMap<String, Vec<v1::DefinitionText>> = BTreeMap::new();
        for path in &self.files {
            let file = SpecFile::open(path)?;
            let texts = match file.bundle() {
                Some(bundle) => export::read(bundle, file.name())?,
                None => vec![file.definition(context.console.color)?],
            };
            for (namespace, text) in texts {
                namespaces.entry(namespace).or_default().push(text);
            }
        }
        let client = context.client().await?;
        let mut defined = Vec::new();
        for texts in namespaces.into_values() {
            defined.extend(client.define(texts).await?.into_iter().map(Defined::from));
        }
        context.output.list(&defined)?;
        Ok(Exit::Success)
    }
}
