//! JSON (RFC 8259) into a [`Node`]. A reader of our own because serde_json gives no places for values; strings and
//! escapes are still decoded by serde_json, and a test holds both to accepting the same texts.

use super::finding::{FieldPath, Finding, Point, shown};
use super::limits::{SPEC_DEPTH_MAX, SPEC_VALUES_MAX};
use super::node::{Entry, Kind, Node, Span, Value};

pub(super) fn read(text: &str) -> Result<Node, Finding> {
    let mut reader = Reader { text, at: 0, values: 0, depth: 0 };
    reader.skip_space();
    let node = reader.value()?;
    reader.skip_space();
    if reader.at < text.len() {
        return Err(reader.wrong("something follows the end of the spec", "a file holds one spec: delete what follows"));
    }
    Ok(node)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    values: usize,
    depth: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A problem at the next character.
    fn wrong(&self, message: impl Into<String>, help: impl Into<String>) -> Finding {
        let len = self.text.get(self.at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        self.wrong_from(self.at, self.at + len, message, help)
    }

    fn wrong_from(&self, start: usize, end: usize, message: impl Into<String>, help: impl Into<String>) -> Finding {
        Finding {
            path: FieldPath::default(),
            point: Point::Value,
            span: Some(Span::new(start, end)),
            first: None,
            message: message.into(),
            help: help.into(),
        }
    }

    /// The help for something unexpected: many try to comment JSON.
    fn or_comment(&self, help: &str) -> String {
        match self.peek() {
            Some(b'/' | b'#') => "JSON has no comments: delete it, or write the spec in YAML or TOML".to_owned(),
            _ => help.to_owned(),
        }
    }

    /// What comes next, for a message.
    fn next_shown(&self) -> String {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => format!("`{}`", shown(c.encode_utf8(&mut [0; 4]))),
            None => "the end of the file".to_owned(),
        }
    }

    fn value(&mut self) -> Result<Node, Finding> {
        self.values += 1;
        if self.values > SPEC_VALUES_MAX {
            return Err(self.wrong(
                format!("the spec holds more than {SPEC_VALUES_MAX} values"),
                "put long lists of items into a file and use `for_each: {lines: FILE}`",
            ));
        }
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.nested(Self::map),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => {
                let text = self.string()?;
                Ok(Node::scalar(Kind::Text, text, Span::new(start, self.at)))
            }
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.word(),
            _ => Err(self.wrong(
                format!("expected a value, found {}", self.next_shown()),
                self.or_comment(
                    "a value is text in double quotes, a number, true, false, null, a list in [ ] or a map in { }",
                ),
            )),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<Value, Finding>) -> Result<Node, Finding> {
        let start = self.at;
        if self.depth == SPEC_DEPTH_MAX {
            return Err(self.wrong(
                format!("lists and maps are nested more than {SPEC_DEPTH_MAX} deep"),
                "a spec needs no more than a few levels: look for a bracket that is not closed",
            ));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(Node { value, span: Span::new(start, self.at) })
    }

    fn list(&mut self) -> Result<Value, Finding> {
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            self.skip_space();
            items.push(self.value()?);
            if self.ends_with(b']', "list", "`,` or `]`")? {
                return Ok(Value::List(items));
            }
        }
    }

    fn map(&mut self) -> Result<Value, Finding> {
        let mut entries = Vec::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Map(entries));
        }
        loop {
            self.skip_space();
            let start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.wrong(
                    format!("expected a key, found {}", self.next_shown()),
                    self.or_comment("keys are in double quotes, and no comma follows the last entry"),
                ));
            }
            let key = self.string()?.into_boxed_str();
            let key_span = Span::new(start, self.at);
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.wrong(
                    format!("expected `:` after the key, found {}", self.next_shown()),
                    "write \"key\": value",
                ));
            }
            self.at += 1;
            self.skip_space();
            let value = self.value()?;
            entries.push(Entry { key, key_span, value });
            if self.ends_with(b'}', "map", "`,` or `}`")? {
                return Ok(Value::Map(entries));
            }
        }
    }

    /// After an element: whether the collection ends here.
    fn ends_with(&mut self, close: u8, what: &str, expected: &str) -> Result<bool, Finding> {
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                self.skip_space();
                if self.peek() == Some(close) {
                    return Err(self.wrong(
                        format!("the {what} ends after a comma"),
                        "JSON allows no comma after the last element: delete it",
                    ));
                }
                Ok(false)
            }
            Some(c) if c == close => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.wrong(
                format!("expected {expected}, found {}", self.next_shown()),
                self.or_comment(&format!("separate elements of a {what} by commas, and close it")),
            )),
        }
    }

    /// A string, whose quotes are the place's.
    fn string(&mut self) -> Result<String, Finding> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(0..=0x1f) => {
                    return Err(self.wrong(
                        "text in JSON cannot hold a line break or a control character",
                        "write \\n for a line break, \\t for a tab",
                    ));
                }
                Some(_) => self.at += 1,
                None => {
                    return Err(self.wrong_from(start, self.text.len(), "the text is not closed", "add a `\"`"));
                }
            }
        }
        self.at += 1;
        // Both ends are quotes, so they are on character boundaries.
        serde_json::from_str(&self.text[start..self.at]).map_err(|_| {
            self.wrong_from(
                start,
                self.at,
                "the text holds an escape that JSON does not know",
                "after a backslash comes one of \" \\ / b f n r t, or u and four hexadecimal digits; write \\\\ for a \
                 backslash",
            )
        })
    }

    fn number(&mut self) -> Result<Node, Finding> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        if !is_number(text) {
            return Err(self.wrong_from(
                start,
                self.at,
                format!("`{}` is not a number in JSON", shown(text)),
                "write 12, -3, 0.5 or 1e6; no leading zero, no plus sign, digits on both sides of the point",
            ));
        }
        Ok(Node::scalar(Kind::Number, text, Span::new(start, self.at)))
    }

    fn word(&mut self) -> Result<Node, Finding> {
        let start = self.at;
        while matches!(self.peek(), Some(b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_')) {
            self.at += 1;
        }
        let text = &self.text[start..self.at];
        let kind = match text {
            "true" | "false" => Kind::Bool,
            "null" => Kind::Null,
            _ => {
                return Err(self.wrong_from(
                    start,
                    self.at,
                    format!("`{}` is not a value in JSON", shown(text)),
                    "put text into double quotes",
                ));
            }
        };
        Ok(Node::scalar(kind, text, Span::new(start, self.at)))
    }
}

/// Whether a number is written as JSON wants it.
pub(super) fn is_number(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let rest = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn both_agree(text: &str) -> Result<(), TestCaseError> {
        let theirs = serde_json::from_str::<serde_json::Value>(text);
        // A number beyond a double's range is fine as text; serde_json refuses it.
        if theirs.as_ref().is_err_and(|error| error.to_string().starts_with("number out of range")) {
            return Ok(());
        }
        prop_assert_eq!(read(text).is_ok(), theirs.is_ok(), "{:?}: {:?}", text, theirs);
        Ok(())
    }

    proptest! {
        #[test]
        fn accepts_what_serde_json_accepts(text in r#"([\[\]{}:,"\\ ntu0-9a\-+.eE]|true|null|"[a-c]{0,2}":?|\\u[0-9a-fA-F]{4}){0,12}"#) {
            both_agree(&text)?;
        }

        #[test]
        fn accepts_single_numbers_that_serde_json_accepts(text in "-?[0-9]{0,3}(\\.[0-9]{0,2})?([eE][+-]?[0-9]{0,2})?") {
            both_agree(&text)?;
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        let error = read(&"[".repeat(1_000_000)).unwrap_err();
        assert!(error.message.contains("nested more than 64 deep"), "{}", error.message);
    }
}
