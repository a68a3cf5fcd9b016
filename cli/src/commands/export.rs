//! `muster export`, and the bundles that it writes.

use std::io::Write as _;

use clap::Args;
use muster_client::v1;
use muster_graph::spec::{Format, NoFiles, Template};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::runnable::{missing, revision_of};
use crate::specification::BUNDLE_BEGIN;

/// The only version of bundles so far.
const VERSION: u32 = 1;

/// Print a definition and all that it is made of, as one file that `muster define` reads, here or in another cluster
#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The definition: NAME, or NAME@REVISION
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it is [default: default]
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

/// Definitions in a file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    /// Its version; the first field, by which a bundle is known.
    muster_bundle: u32,
    definitions: Vec<Bundled>,
}

/// One of them. The spec is JSON in a text, so that nothing on the way reads its numbers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundled {
    format: String,
    text: String,
    spec: String,
}

impl Export {
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, Failure> {
        let (name, revision) = revision_of(&self.name)?;
        let client = context.client().await?;
        let wanted = v1::GetDefinitionRequest { namespace: self.namespace.unwrap_or_default(), name, revision };
        let texts = client.export_definition(wanted).await.map_err(missing)?;
        let mut out = std::io::stdout().lock();
        out.write_all(write(texts).as_bytes())?;
        Ok(Exit::Success)
    }
}

/// A definition on each line, so that bundles can be compared.
fn write(texts: Vec<v1::DefinitionText>) -> String {
    let lines: Vec<String> = texts
        .into_iter()
        .map(|v1::DefinitionText { spec, text, format }| {
            serde_json::to_string(&Bundled { format, text, spec }).expect("text is always JSON")
        })
        .collect();
    format!("{BUNDLE_BEGIN}{VERSION},\"definitions\":[\n{}\n]}}\n", lines.join(",\n"))
}

/// What is in a bundle, with the namespaces.
pub(super) fn read(bundle: &str, file: &str) -> Result<Vec<(String, v1::DefinitionText)>, Failure> {
    let bundle: Bundle = serde_json::from_str(bundle)
        .map_err(|error| Failure::usage(format!("{file} is no bundle of definitions: {error}")))?;
    if bundle.muster_bundle != VERSION {
        let version = bundle.muster_bundle;
        return Err(Failure::usage(format!(
            "{file} is a bundle of version {version}, and this program reads {VERSION}"
        ))
        .help("upgrade this program"));
    }
    let read = |bundled: Bundled| {
        let spec = Template::read(&bundled.spec, Format::Json)
            .and_then(|template| template.sketch())
            .and_then(|draft| draft.resolve(&NoFiles))
            .map_err(|problems| Failure::usage(format!("{file}: a definition has problems\n{problems}")))?;
        Ok((spec.namespace, v1::DefinitionText { spec: bundled.spec, text: bundled.text, format: bundled.format }))
    };
    bundle.definitions.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_as_it_was_written() {
        let text = |name: &str| v1::DefinitionText {
            spec: format!("{{\"name\":\"{name}\",\"namespace\":\"etl\",\"run\":[\"a\",1.10]}}"),
            text: format!("name: {name}\n# \"quoted\"\nrun: [a, 1.10]\n"),
            format: "yaml".to_owned(),
        };
        let bundle = write(vec![text("one"), text("two")]);
        assert!(bundle.starts_with(BUNDLE_BEGIN), "{bundle}");
        let read = read(&bundle, "bundle.json").unwrap();
        assert_eq!(read, [("etl".to_owned(), text("one")), ("etl".to_owned(), text("two"))]);
    }

    #[test]
    fn a_bundle_of_a_later_version_is_refused_by_name() {
        let failure = read("{\"muster_bundle\":2,\"definitions\":[]}", "bundle.json").unwrap_err();
        assert!(failure.message.contains("bundle of version 2"), "{}", failure.message);
    }
}
