//! TOML 1.1 into a [`Node`].
//!
//! The parser recovers from errors, so that all of them are reported; a text with syntax errors is then not looked at
//! any further, since what the parser guessed would only produce noise. It keeps every error, so only texts of a size
//! that people write are parsed that way.

use toml::de::{DeTable, DeValue};

use super::finding::{FieldPath, Finding, Findings, Point, Segment, shown};
use super::limits::{SPEC_DEPTH_MAX, SPEC_VALUES_MAX};
use super::node::{Entry, Kind, Node, Span, Value};

/// Longer texts are told their first error only.
const RECOVERY_BYTES_MAX: usize = 1 << 20;

pub(super) fn read(text: &str) -> Result<Node, Findings> {
    let mut findings = Findings::default();
    // The parser has no limit of its own on how many values it makes, so it is bounded before it starts.
    if text.bytes().filter(|b| matches!(b, b',' | b'=' | b'[')).count() > SPEC_VALUES_MAX {
        findings.push(Finding {
            path: FieldPath::default(),
            point: Point::Value,
            span: None,
            first: None,
            message: format!("the spec may hold more than {SPEC_VALUES_MAX} values (commas, `=` and `[` are counted)"),
            help: "put long lists of items into a file and use `for_each = {lines = FILE}`".to_owned(),
        });
        return Err(findings);
    }
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(first) => {
            let all = if text.len() <= RECOVERY_BYTES_MAX { DeTable::parse_recoverable(text).1 } else { vec![first] };
            for error in &all {
                findings.push(placed(text, error));
            }
            return Err(findings);
        }
    };
    let span = Span::new(0, text.len());
    let mut depth = Depth { deepest: None };
    let root = Node { value: depth.table(table, 1), span };
    if let Some(span) = depth.deepest {
        findings.push(Finding {
            path: FieldPath::default(),
            point: Point::Value,
            span: Some(span),
            first: None,
            message: format!("lists and maps are nested more than {SPEC_DEPTH_MAX} deep"),
            help: "a spec needs no more than a few levels: look for a bracket that is not closed".to_owned(),
        });
    }
    if findings.is_empty() { Ok(root) } else { Err(findings) }
}

/// An error of the parser, in our words where we know better ones.
fn placed(text: &str, error: &toml::de::Error) -> Finding {
    let span = error.span().unwrap_or(text.len()..text.len());
    let said = error.message().trim();
    let mut path = FieldPath::default();
    let (message, help) = if said.starts_with("duplicate key") {
        let key = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
        path = FieldPath::job([Segment::Key(key.to_owned().into())]);
        (format!("`{}` is given twice", shown(key)), "keep one of them".to_owned())
    } else if said.contains("recursion limit") || said.contains("recursion depth") {
        ("lists and maps are nested too deep".to_owned(), "look for a bracket that is not closed".to_owned())
    } else if said.contains("string values must be quoted") && span.is_empty() {
        ("a value is missing".to_owned(), "write the value behind the `=`; text is in quotes".to_owned())
    } else if said.contains("string values must be quoted") {
        ("text must be in quotes".to_owned(), "write \"…\" around it".to_owned())
    } else {
        (
            format!("this is not TOML: {said}"),
            "an entry is `key = value` on its own line; text is in quotes, a list in [ ], a map in { }".to_owned(),
        )
    };
    Finding { path, point: Point::Value, span: Some(Span::new(span.start, span.end)), first: None, message, help }
}

struct Depth {
    /// The first value that is too deep.
    deepest: Option<Span>,
}

impl Depth {
    fn table(&mut self, table: DeTable<'_>, depth: usize) -> Value {
        let mut entries: Vec<Entry> = table
            .into_iter()
            .map(|(key, value)| {
                let key_span = span_of(key.span());
                Entry { key: key.into_inner().into(), key_span, value: self.node(value, depth) }
            })
            .collect();
        // The parser sorts by name; the order of the text is the one that the user knows.
        entries.sort_by_key(|entry| entry.key_span.start);
        Value::Map(entries)
    }

    fn node(&mut self, value: toml::Spanned<DeValue<'_>>, depth: usize) -> Node {
        let span = span_of(value.span());
        let is_nested = matches!(value.get_ref(), DeValue::Array(_) | DeValue::Table(_));
        if is_nested && depth >= SPEC_DEPTH_MAX {
            self.deepest.get_or_insert(span);
            return Node::scalar(Kind::Null, "", span);
        }
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Scalar(Kind::Text, text.into()),
            DeValue::Integer(number) => Value::Scalar(Kind::Number, integer(&number).into()),
            DeValue::Float(number) => Value::Scalar(Kind::Number, number.as_str().into()),
            DeValue::Boolean(truth) => Value::Scalar(Kind::Bool, if truth { "true" } else { "false" }.into()),
            DeValue::Datetime(date) => Value::Scalar(Kind::Date, date.to_string().into()),
            DeValue::Array(items) => Value::List(items.into_iter().map(|item| self.node(item, depth + 1)).collect()),
            DeValue::Table(table) => self.table(table, depth + 1),
        };
        Node { value, span }
    }
}

/// The parser keeps the digits and the radix apart.
fn integer(number: &toml::de::DeInteger<'_>) -> String {
    let prefix = match number.radix() {
        2 => "0b",
        8 => "0o",
        16 => "0x",
        _ => "",
    };
    format!("{prefix}{}", number.as_str())
}

fn span_of(range: std::ops::Range<usize>) -> Span {
    Span::new(range.start, range.end)
}
