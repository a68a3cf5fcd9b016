//! Definitions, as rows, as pages and as JSON.

use std::io;

use jiff::Timestamp;
use muster_client::v1;
use muster_graph::spec::{Format, Template};
use serde::Serialize;

use super::time::{age, rfc3339};
use super::views::optional;
use super::{Cell, Detail, Page, Row};

/// A revision of a definition.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Use {
    pub(crate) name: String,
    /// Null: the newest at the time of a run.
    pub(crate) revision: Option<u32>,
}

impl Use {
    /// `etl`, `etl@3`.
    pub(crate) fn text(&self) -> String {
        self.revision.map_or_else(|| self.name.clone(), |revision| format!("{}@{revision}", self.name))
    }
}

impl From<v1::DefinitionUse> for Use {
    fn from(used: v1::DefinitionUse) -> Self {
        Self { name: used.name, revision: (used.revision > 0).then_some(used.revision) }
    }
}

/// What a define made.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Defined {
    namespace: String,
    name: String,
    revision: u32,
    changed: bool,
}

impl From<v1::Defined> for Defined {
    fn from(defined: v1::Defined) -> Self {
        let v1::Defined { namespace, name, revision, unchanged } = defined;
        Self { namespace, name, revision, changed: !unchanged }
    }
}

impl Row for Defined {
    fn name(&self) -> String {
        format!("{}@{}", self.name, self.revision)
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "REVISION", "CHANGED"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.namespace),
            Cell::new(&self.name),
            Cell::number(self.revision),
            Cell::new(if self.changed { "yes" } else { "no" }),
        ]
    }
}

/// A definition, as lists show it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Definition {
    namespace: String,
    name: String,
    revision: u32,
    defined_at: Option<String>,
    uses: Vec<Use>,
    #[serde(skip)]
    defined_ms: u64,
}

impl From<v1::DefinitionView> for Definition {
    fn from(view: v1::DefinitionView) -> Self {
        Self {
            namespace: view.namespace,
            name: view.name,
            revision: view.revision,
            defined_at: rfc3339(view.defined_at_ms),
            uses: view.uses.into_iter().map(Use::from).collect(),
            defined_ms: view.defined_at_ms,
        }
    }
}

/// `clean, load@3`.
pub(super) fn in_a_row(uses: &[Use]) -> String {
    uses.iter().map(Use::text).collect::<Vec<_>>().join(", ")
}

impl Row for Definition {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["NAMESPACE", "NAME", "REVISION", "AGE", "USES"]
    }

    fn cells(&self, _: bool, now: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.namespace),
            Cell::new(&self.name),
            Cell::number(self.revision),
            Cell::number(age(self.defined_ms, now)),
            Cell::optional(&in_a_row(&self.uses)),
        ]
    }
}

/// A parameter.
#[derive(Debug, Clone, Serialize)]
struct Param {
    name: String,
    r#type: &'static str,
    /// Null: something must be given.
    default: Option<String>,
    help: Option<String>,
}

impl Row for Param {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn headers(_: bool) -> Vec<&'static str> {
        vec!["PARAMETER", "TYPE", "DEFAULT", "HELP"]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<Cell> {
        vec![
            Cell::new(&self.name),
            Cell::new(self.r#type),
            self.default.as_ref().map_or_else(|| Cell::new("must be given"), Cell::new),
            Cell::optional(self.help.as_deref().unwrap_or_default()),
        ]
    }
}

/// A definition, at length.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DefinitionAtLength {
    #[serde(flatten)]
    definition: Definition,
    latest: u32,
    used_by: Vec<String>,
    params: Vec<Param>,
    /// Of the text: yaml, toml or json.
    format: String,
    /// As it was written.
    text: String,
    /// As JSON that stands on its own.
    spec: String,
}

impl From<v1::DefinitionView> for DefinitionAtLength {
    fn from(mut view: v1::DefinitionView) -> Self {
        let (latest, used_by) = (view.latest, std::mem::take(&mut view.used_by));
        let v1::DefinitionText { spec, text, format } = view.text.take().unwrap_or_default();
        // One that a newer cluster keeps may say what this program does not know.
        let params = Template::read(&spec, Format::Json).map_or_else(
            |_| Vec::new(),
            |template| {
                let shown = |(name, param): (&str, &muster_graph::spec::Param)| Param {
                    name: name.to_owned(),
                    r#type: param.kind().name(),
                    default: param.default_text(),
                    help: optional(param.help().to_owned()),
                };
                template.params().iter().map(shown).collect()
            },
        );
        Self { definition: view.into(), latest, used_by, params, format, text, spec }
    }
}

impl Detail for DefinitionAtLength {
    fn name(&self) -> String {
        format!("{}@{}", self.definition.name, self.definition.revision)
    }

    fn show(&self, page: &mut Page<'_>) -> io::Result<()> {
        let definition = &self.definition;
        let revision = match self.latest {
            latest if latest == definition.revision => latest.to_string(),
            latest => format!("{} of {latest}", definition.revision),
        };
        let mut facts = vec![
            ("Definition", Cell::new(&definition.name)),
            ("Namespace", Cell::new(&definition.namespace)),
            ("Revision", Cell::new(revision)),
            ("Defined", Cell::new(format!("{} ago", age(definition.defined_ms, page.now())))),
        ];
        if !definition.uses.is_empty() {
            facts.push(("Uses", Cell::new(in_a_row(&definition.uses))));
        }
        if !self.used_by.is_empty() {
            facts.push(("Used by", Cell::new(self.used_by.join(", "))));
        }
        page.facts(facts)?;
        if !self.params.is_empty() {
            page.headline("Parameters")?;
            page.table(&self.params)?;
        }
        page.headline(&format!("Text ({})", self.format))?;
        page.text(&self.text)
    }
}
