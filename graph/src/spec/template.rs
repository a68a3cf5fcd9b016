//! A spec's text before anything is given for its parameters: what a definition is kept as.

use super::draft::{Draft, Files, place, read_items};
use super::finding::{FieldPath, Finding, Findings, Point, Segment};
use super::from_json::is_number;
use super::model::Arguments;
use super::node::{Kind, Node, Value};
use super::params::{Missing, Params};
use super::problem::Problems;
use super::substitute::{MARK, is_mark, substitute};
use super::{Format, decode};

/// A text that has its format's syntax.
#[derive(Debug, Clone)]
pub struct Template {
    /// Without the mark of byte order that it may begin with.
    text: String,
    /// Bytes of that mark.
    skipped: usize,
    root: Node,
    params: Params,
    /// What is wrong with the declarations.
    declared: Findings,
}

impl Template {
    /// Reads the text and the parameters that it declares. What else is in it, [`Template::sketch`] and
    /// [`Template::draft`] look at.
    ///
    /// # Errors
    /// The syntax is broken, or the text is too long.
    pub fn read(text: &str, format: Format) -> Result<Self, Problems> {
        // Editors on some systems begin files with it; it is no part of any of the formats.
        let without_mark = text.strip_prefix('\u{feff}').unwrap_or(text);
        let skipped = text.len() - without_mark.len();
        let root = super::tree(without_mark, format).map_err(|problems| problems.shifted(skipped))?;
        let (params, declared) = decode::params(&root);
        Ok(Self { text: without_mark.to_owned(), skipped, root, params, declared })
    }

    /// What it declares.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The spec with these values for its parameters.
    ///
    /// # Errors
    /// All problems: of the declarations, of what was given, and of the spec that comes of it.
    pub fn draft(&self, arguments: &Arguments) -> Result<Draft, Problems> {
        self.clone().into_draft(arguments)
    }

    /// The same, without a copy.
    pub(super) fn into_draft(self, arguments: &Arguments) -> Result<Draft, Problems> {
        self.built(arguments, Missing::Refused)
    }

    /// The spec as far as it is known while parameters without a default have no value: what only such values decide
    /// is neither judged nor to be relied on. Names, stages and what they wait for never depend on values.
    ///
    /// # Errors
    /// All problems that are there whatever will be given.
    pub fn sketch(&self) -> Result<Draft, Problems> {
        self.clone().built(&Arguments::new(), Missing::Open)
    }

    fn built(self, arguments: &Arguments, missing: Missing) -> Result<Draft, Problems> {
        let Self { text, skipped, mut root, params, declared: mut findings } = self;
        let (values, wrong) = params.bind(arguments, missing);
        for (name, (message, help)) in wrong {
            let mut path = vec![Segment::key("params")];
            path.extend((!name.is_empty()).then(|| Segment::Key(name.into())));
            let path = FieldPath::job(path);
            findings.push(Finding { path, point: Point::Key, span: None, first: None, message, help });
        }
        let sites = substitute(&mut root, &params, &values, &mut findings);
        Draft::new(&text, root, &sites, findings).map_err(|problems| problems.shifted(skipped))
    }

    /// The same, called differently.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        if let Some(node) = entry(&mut self.root, "name") {
            *node = Node::scalar(Kind::Text, name, node.span);
        }
        self
    }

    /// The same spec as JSON, items that come from files read in. It stands on its own: that is how definitions are kept.
    ///
    /// # Errors
    /// Files that cannot be read, or whose names are parameters.
    pub fn canonical(&self, files: &dyn Files) -> Result<String, Problems> {
        let mut root = self.root.clone();
        let mut findings = Findings::default();
        Reading { files, findings: &mut findings, path: Vec::new() }.job(&mut root);
        if !findings.is_empty() {
            return Err(place(&self.text, Some(&self.root), None, findings).shifted(self.skipped));
        }
        let mut json = String::new();
        write_json(&root, &mut json);
        Ok(json)
    }
}

/// Replaces `for_each: {lines: …}` and `{glob: …}` by the items.
struct Reading<'a> {
    files: &'a dyn Files,
    findings: &'a mut Findings,
    path: Vec<Segment>,
}

impl Reading<'_> {
    fn job(&mut self, node: &mut Node) {
        self.stage(node);
        let Some(stages) = entry(node, "stages") else { return };
        let stages: Vec<(Segment, &mut Node)> = match &mut stages.value {
            Value::Map(entries) => {
                entries.iter_mut().map(|entry| (Segment::Key(entry.key.to_string().into()), &mut entry.value)).collect()
            }
            Value::List(items) => items.iter_mut().enumerate().map(|(i, item)| (Segment::Index(i), item)).collect(),
            Value::Scalar(..) => Vec::new(),
        };
        self.path.push(Segment::key("stages"));
        for (segment, stage) in stages {
            self.path.push(segment);
            self.stage(stage);
            self.path.pop();
        }
        self.path.pop();
    }

    fn stage(&mut self, node: &mut Node) {
        if let Some(inner) = entry(node, "job") {
            self.path.push(Segment::key("job"));
            self.job(inner);
            self.path.pop();
        }
        let Some(for_each) = entry(node, "for_each") else { return };
        for key in ["lines", "glob"] {
            let Some(name) = for_each.get(key).map(|entry| &entry.value) else { continue };
            let read = match &name.value {
                _ if is_mark(name) => Err((
                    "which file is read cannot be a parameter of a definition".to_owned(),
                    format!(
                        "files are read when it is defined: name the file, or take the items: for_each: {{{MARK}: items}}"
                    ),
                )),
                Value::Scalar(_, text) => match key {
                    "lines" => read_items(&super::ForEach::Lines(text.to_string()), self.files),
                    _ => read_items(&super::ForEach::Glob(text.to_string()), self.files),
                },
                // The decoder says what is wrong with it.
                Value::List(_) | Value::Map(_) => return,
            };
            let span = for_each.span;
            match read {
                Ok(items) => {
                    let items = items.into_iter().map(|item| Node::scalar(Kind::Text, item, span)).collect();
                    *for_each = Node { value: Value::List(items), span };
                }
                Err((message, help)) => {
                    let path = FieldPath::job(
                        self.path
                            .iter()
                            .cloned()
                            .chain([Segment::key("for_each"), Segment::key(key)])
                            .collect::<Vec<_>>(),
                    );
                    let span = Some(name.span);
                    self.findings.push(Finding { path, point: Point::Value, span, first: None, message, help });
                }
            }
            return;
        }
    }
}

/// The value of a key.
fn entry<'n>(node: &'n mut Node, key: &str) -> Option<&'n mut Node> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|entry| &*entry.key == key).map(|entry| &mut entry.value),
        Value::Scalar(..) | Value::List(_) => None,
    }
}

/// Scalars keep what they are: numbers as they were written where JSON can write them so, else as text.
fn write_json(node: &Node, out: &mut String) {
    let text_of = |text: &str| serde_json::Value::from(text).to_string();
    match &node.value {
        Value::Scalar(Kind::Null | Kind::Open, _) => out.push_str("null"),
        Value::Scalar(Kind::Bool, text) => out.push_str(&text.to_lowercase()),
        Value::Scalar(Kind::Number, text) if is_number(text) => out.push_str(text),
        Value::Scalar(_, text) => out.push_str(&text_of(text)),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (index, entry) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&text_of(&entry.key));
                out.push(':');
                write_json(&entry.value, out);
            }
            out.push('}');
        }
    }
}
