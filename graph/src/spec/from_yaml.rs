//! YAML 1.2 into a [`Node`], from the parser's events.
//!
//! Built by a loop over an explicit stack, never by recursion. What aliases stand for is copied, within a budget, so
//! that a bomb of aliases is refused when it goes over it and not after it went off. Scalars follow YAML's core
//! schema: `no` and `on` are text, `null`, `true` and `12` are what they look like.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Span as YamlSpan, Tag, options};

use super::finding::{FieldPath, Finding, Point, shown};
use super::limits::{ALIAS_BYTES_MAX, ALIAS_VALUES_MAX, SPEC_DEPTH_MAX, SPEC_VALUES_MAX};
use super::node::{Entry, Kind, Node, Span, Value};

pub(super) fn read(text: &str) -> Result<Node, Finding> {
    let options = options! {
        flow_nesting_limit: SPEC_DEPTH_MAX + 1,
        block_nesting_limit: SPEC_DEPTH_MAX + 1,
        emit_comments: false,
        emit_unresolved_aliases: true,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| syntax(text, &error))?;
        builder.take(event, span_of(text, &span))?;
    }
    builder.root.ok_or_else(|| {
        finding(
            Span::new(0, 0),
            "the spec is empty",
            "the smallest one is a `name` and a `run`, for example: {name: hello, run: echo hello}",
        )
    })
}

fn finding(span: Span, message: impl Into<String>, help: impl Into<String>) -> Finding {
    Finding {
        path: FieldPath::default(),
        point: Point::Value,
        span: Some(span),
        first: None,
        message: message.into(),
        help: help.into(),
    }
}

fn span_of(text: &str, span: &YamlSpan) -> Span {
    span.byte_range().map_or(Span::new(text.len(), text.len()), |range| Span::new(range.start, range.end))
}

/// A collection that is not closed yet.
struct Open {
    kind: Collection,
    start: Span,
    anchor: usize,
}

enum Collection {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(Box<str>, Span)> },
}

/// What an alias would stand for.
enum Anchored {
    Copy { node: Node, values: usize, bytes: usize },
    TooLarge,
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    values: usize,
    anchors: HashMap<usize, Anchored>,
    anchored_values: usize,
    anchored_bytes: usize,
    alias_values: usize,
    alias_bytes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Finding> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let kind = self.kind(&text, style, tag.as_deref(), span)?;
                self.close(Node::scalar(kind, text, span), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "seq", span)?;
                self.begin(Collection::List(Vec::new()), span, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(tag.as_deref(), "map", span)?;
                self.begin(Collection::Map { entries: Vec::new(), key: None }, span, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { kind, start, anchor }) = self.open.pop() else { return Ok(()) };
                let value = match kind {
                    Collection::List(items) => Value::List(items),
                    Collection::Map { entries, .. } => Value::Map(entries),
                };
                let whole = Span { start: start.start, end: span.end.max(start.end) };
                self.close(Node { value, span: whole }, anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::UnresolvedAlias(name) => Err(finding(
                span,
                format!("nothing above is marked with `&{}`", shown(&name)),
                "mark the value that is meant with `&name` before its first use, or write it out",
            )),
            Event::DocumentStart(..) if self.root.is_some() => Err(finding(
                span,
                "a second document begins here",
                "a file holds one spec: delete the `---` and what follows",
            )),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, kind: Collection, start: Span, anchor: usize) -> Result<(), Finding> {
        if let Some(Open { kind: Collection::Map { key: None, .. }, .. }) = self.open.last() {
            return Err(finding(start, "a list or map cannot be a key", "write the key as plain text"));
        }
        if self.open.len() >= SPEC_DEPTH_MAX {
            return Err(too_deep(start));
        }
        self.open.push(Open { kind, start, anchor });
        Ok(())
    }

    /// A node is complete: it goes into the collection around it.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Finding> {
        if anchor != 0 {
            self.remember(anchor, &node);
        }
        self.attach(node)
    }

    fn attach(&mut self, node: Node) -> Result<(), Finding> {
        self.values += 1;
        if self.values > SPEC_VALUES_MAX {
            return Err(finding(
                node.span,
                format!("the spec holds more than {SPEC_VALUES_MAX} values"),
                "put long lists of items into a file and use `for_each: {lines: FILE}`",
            ));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(Collection::List(items)) => items.push(node),
            Some(Collection::Map { entries, key }) => match key.take() {
                Some((key, key_span)) => entries.push(Entry { key, key_span, value: node }),
                None => match node.value {
                    Value::Scalar(_, text) => *key = Some((text, node.span)),
                    Value::List(_) | Value::Map(_) => {
                        return Err(finding(node.span, "a list or map cannot be a key", "write the key as plain text"));
                    }
                },
            },
        }
        Ok(())
    }

    fn remember(&mut self, anchor: usize, node: &Node) {
        let (mut values, mut bytes) = (0, 0);
        // Anchors can be nested, so what all of them keep is bounded too, and not only each.
        let fits = weigh(node, &mut values, &mut bytes)
            && self.anchored_values + values <= ALIAS_VALUES_MAX
            && self.anchored_bytes + bytes <= ALIAS_BYTES_MAX;
        let anchored = if fits {
            self.anchored_values += values;
            self.anchored_bytes += bytes;
            Anchored::Copy { node: node.clone(), values, bytes }
        } else {
            Anchored::TooLarge
        };
        self.anchors.insert(anchor, anchored);
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Finding> {
        let node = match self.anchors.get(&anchor) {
            None => {
                return Err(finding(span, "this alias stands inside the value that it means", "write the value out"));
            }
            Some(Anchored::TooLarge) => return Err(too_many_aliases(span)),
            Some(Anchored::Copy { node, values, bytes }) => {
                self.alias_values += values;
                self.alias_bytes += bytes;
                if self.alias_values > ALIAS_VALUES_MAX || self.alias_bytes > ALIAS_BYTES_MAX {
                    return Err(too_many_aliases(span));
                }
                if self.open.len() + height(node) > SPEC_DEPTH_MAX {
                    return Err(too_deep(span));
                }
                self.values += values;
                Node { value: node.value.clone(), span }
            }
        };
        self.attach(node)
    }

    /// What YAML's core schema takes a scalar for.
    fn kind(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Kind, Finding> {
        if let Some(tag) = tag {
            return match tag.core_suffix() {
                Some("str") => Ok(Kind::Text),
                Some("null" | "bool" | "int" | "float") => Ok(plain_kind(text)),
                _ => Err(unknown_tag(tag, span)),
            };
        }
        Ok(if style == ScalarStyle::Plain { plain_kind(text) } else { Kind::Text })
    }
}

/// Adds up a tree's values and bytes; false as soon as that is more than any alias may stand for.
fn weigh(node: &Node, values: &mut usize, bytes: &mut usize) -> bool {
    *values += 1;
    if *values > ALIAS_VALUES_MAX || *bytes > ALIAS_BYTES_MAX {
        return false;
    }
    match &node.value {
        Value::Scalar(_, text) => {
            *bytes += text.len();
            true
        }
        Value::List(items) => items.iter().all(|item| weigh(item, values, bytes)),
        Value::Map(entries) => entries.iter().all(|entry| {
            *bytes += entry.key.len();
            weigh(&entry.value, values, bytes)
        }),
    }
}

/// How many levels of lists and maps.
fn height(node: &Node) -> usize {
    match &node.value {
        Value::Scalar(..) => 0,
        Value::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| height(&entry.value)).max().unwrap_or(0),
    }
}

fn too_deep(span: Span) -> Finding {
    finding(
        span,
        format!("lists and maps are nested more than {SPEC_DEPTH_MAX} deep"),
        "a spec needs no more than a few levels: look for a bracket that is not closed",
    )
}

fn too_many_aliases(span: Span) -> Finding {
    finding(
        span,
        format!("aliases stand for more than {ALIAS_VALUES_MAX} values or {} MiB of text", ALIAS_BYTES_MAX >> 20),
        "write the values out, or put a long list of items into a file and use `for_each: {lines: FILE}`",
    )
}

fn refuse_tag(tag: Option<&Tag>, allowed: &str, span: Span) -> Result<(), Finding> {
    match tag {
        Some(tag) if tag.core_suffix() != Some(allowed) => Err(unknown_tag(tag, span)),
        Some(_) | None => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, span: Span) -> Finding {
    finding(
        span,
        format!("the tag `{}` is not known here", shown(&tag.original())),
        "delete it; put the value into quotes if it is text",
    )
}

/// YAML 1.2.2, section 10.3.2.
fn plain_kind(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Bool,
        _ if is_number(text) => Kind::Number,
        _ => Kind::Text,
    }
}

fn is_number(text: &str) -> bool {
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if let Some(octal) = text.strip_prefix("0o") {
        return !octal.is_empty() && octal.bytes().all(|b| (b'0'..=b'7').contains(&b));
    }
    if let Some(hexadecimal) = text.strip_prefix("0x") {
        return !hexadecimal.is_empty() && hexadecimal.bytes().all(|b| b.is_ascii_hexdigit());
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// A syntax error, in our words where a user of YAML meets it often.
fn syntax(text: &str, error: &ScanError) -> Finding {
    let mut at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
    // The parser points behind a tab that it met.
    if text.as_bytes()[..at].ends_with(b"\t") {
        at -= 1;
    }
    let span = Span::new(at, at + 1);
    let (message, help) = match error.kind() {
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => {
            ("a tab is used for indentation".to_owned(), "YAML is indented with spaces only: replace the tab")
        }
        ErrorKind::RecursionLimitExceeded => return too_deep(span),
        ErrorKind::UnclosedFlowCollection { open } => (format!("`{open}` is not closed"), "add the closing bracket"),
        ErrorKind::UnexpectedEofFlowSequence => ("a list in [ ] is not closed".to_owned(), "add the `]`"),
        ErrorKind::UnexpectedEofFlowMapping | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            ("a map in { } is not closed".to_owned(), "add the `}`")
        }
        ErrorKind::UnclosedQuotedScalar => ("text in quotes is not closed".to_owned(), "add the closing quote"),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "a `:` cannot stand here".to_owned(),
            "if it belongs to the text, put the whole text into quotes; otherwise check the indentation",
        ),
        ErrorKind::UnknownQuotedScalarEscape => (
            "the text holds an escape that YAML does not know".to_owned(),
            "in double quotes, write \\\\ for a backslash; or use single quotes, which know no escapes",
        ),
        ErrorKind::InvalidIndentation | ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => (
            "the indentation does not fit the lines above".to_owned(),
            "keys of one map, and elements of one list, begin in the same column",
        ),
        ErrorKind::SimpleKeyExpected => (
            "expected `key: value`".to_owned(),
            "write a `:` and a space after the key, and indent the lines of a longer text",
        ),
        other => {
            (format!("this is not YAML: {other}"), "check quotes, brackets and indentation here and on the line above")
        }
    };
    finding(span, message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_follow_the_core_schema() {
        for (text, kind) in [
            ("12", Kind::Number),
            ("-0.5", Kind::Number),
            ("1e3", Kind::Number),
            ("0x1F", Kind::Number),
            (".5", Kind::Number),
            (".inf", Kind::Number),
            ("1.2.3", Kind::Text),
            ("500m", Kind::Text),
            ("no", Kind::Text),
            ("e5", Kind::Text),
            (".", Kind::Text),
            ("-", Kind::Text),
            ("1e", Kind::Text),
            ("True", Kind::Bool),
            ("~", Kind::Null),
        ] {
            assert_eq!(plain_kind(text), kind, "{text}");
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_before_it_goes_off() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..30 {
            let below = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![below; 10].join(", ")));
        }
        let error = read(&text).unwrap_err();
        assert!(error.message.contains("aliases stand for more than"), "{}", error.message);
    }

    #[test]
    fn a_long_text_behind_many_aliases_is_refused() {
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 50].join(", "));
        let error = read(&text).unwrap_err();
        assert!(error.message.contains("aliases stand for more than"), "{}", error.message);
    }

    #[test]
    fn an_alias_inside_its_own_value_is_refused() {
        let error = read("a: &a [1, *a]\n").unwrap_err();
        assert!(error.message.contains("inside the value"), "{}", error.message);
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        for text in ["[".repeat(500_000), "- ".repeat(500_000), "{a: ".repeat(200_000), "? ".repeat(300_000)] {
            let error = read(&text).unwrap_err();
            assert!(error.message.contains("nested more than") || error.message.contains("key"), "{}", error.message);
        }
    }

    #[test]
    fn aliases_cannot_nest_deeper_than_the_limit() {
        let mut text = String::from("a0: &a0 [x]\n");
        for level in 1..100 {
            text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
        }
        let error = read(&text).unwrap_err();
        assert!(error.message.contains("nested more than"), "{}", error.message);
    }
}
