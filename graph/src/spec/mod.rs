//! What a user asks for. One model, whatever the text it was written in.
//!
//! [`read`] turns text into a [`Draft`] or into *all* of its problems, each with its place and a remedy;
//! [`Draft::resolve`] fills in what comes from files. [`check()`] holds the rules that need no text. [`expand()`] is what a
//! scheduler runs on every submit: it checks, and puts jobs in the places of the stages that name them; what comes out of it
//! compiles.
//!
//! The way of a text: one reader for each format (`from_yaml`, `from_toml`, `from_json`) → one tree whose values know
//! their places (`node`) → values of parameters take the places of their marks (`substitute`) → one decoder that reports and
//! goes on (`decode`) → the rules (`check`).
//!
//! Architecture invariants: nothing panics, whatever the text; memory and depth are bounded by [`limits`]; there is no
//! I/O; the same text always gives the same answer.

mod after;
mod check;
mod decode;
mod draft;
mod expand;
mod finding;
mod from_json;
mod from_toml;
mod from_yaml;
mod keys;
mod library;
pub mod limits;
mod model;
mod node;
mod params;
pub mod path;
mod placement;
mod problem;
mod quantity;
mod schema;
mod substitute;
mod suggest;
mod template;

use std::path::Path;

pub use after::{AfterJob, AwaitedEnd, NotAfterJob};
pub(crate) use check::{Edge as SpecEdge, Names};
pub use check::{check, check_expanded, is_namespace};
pub use draft::{Draft, Files, ForEach, NoFiles};
pub use expand::{Expanded, Used, expand, measure};
pub use library::{Found, Library, NoLibrary, Outline, Reference, Unknown};
pub use model::*;
pub use params::{Param, ParamType, Params};
pub use path::StagePath;
pub use placement::{LabelRule, Placement, Placing, Policy, Preference};
pub use problem::{Place, Problem, Problems};
pub use schema::schema;
pub use template::Template;

/// How a spec is written. One model for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// YAML 1.2, one document.
    Yaml,
    /// TOML 1.1.
    Toml,
    /// JSON (RFC 8259), no comments.
    Json,
}

impl Format {
    /// By the name's ending: `.yaml`, `.yml`, `.toml`, `.json`.
    #[must_use]
    pub fn of_path(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Reads a spec. No I/O: items that come from files are filled in by [`Draft::resolve`].
///
/// # Errors
/// All problems of the text at once. A text that breaks its format's syntax is not looked at any further.
pub fn read(text: &str, format: Format) -> Result<Draft, Problems> {
    Template::read(text, format)?.into_draft(&Arguments::new())
}

/// The tree of a text.
fn tree(text: &str, format: Format) -> Result<node::Node, Problems> {
    if text.len() > limits::SPEC_BYTES_MAX {
        return Err(Problems(vec![Problem {
            place: None,
            field: String::new(),
            message: format!(
                "the spec has {} bytes, which is more than the {} MiB that one may have",
                text.len(),
                limits::SPEC_BYTES_MAX >> 20
            ),
            help: "put long lists of items into a file and use `for_each: {lines: FILE}`".to_owned(),
        }]));
    }
    let unreadable = |findings| draft::place(text, None, None, findings);
    let root = match format {
        Format::Yaml => from_yaml::read(text).map_err(finding::Findings::from),
        Format::Json => from_json::read(text).map_err(finding::Findings::from),
        Format::Toml => from_toml::read(text),
    };
    root.map_err(unreadable)
}
