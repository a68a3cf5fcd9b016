//! Single values.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Decoder;
use crate::spec::finding::{Segment, shown};
use crate::spec::node::{Kind, Node, Value};
use crate::spec::quantity::{self, Wrong};
use crate::spec::suggest::nearest;

/// The help for a number that must be in a range; an end that only the type gives is not worth a word.
fn range(least: i128, most: i128) -> String {
    let (has_least, has_most) = (least > i32::MIN.into(), most < i32::MAX.into());
    match (has_least, has_most) {
        (true, true) => format!("write a whole number from {least} to {most}"),
        (true, false) => format!("write a whole number from {least} on"),
        (false, _) => format!("write a whole number up to {most}, for example 10"),
    }
}

impl Decoder {
    /// Text. Numbers, truth values and dates are taken as they are written: `1.10` is "1.10".
    pub(super) fn text(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Scalar(Kind::Null | Kind::Open, _) => {
                self.mismatch(node, "text", "write \"\" if empty text is meant");
                None
            }
            Value::Scalar(_, text) => Some(text.to_string()),
            Value::List(_) | Value::Map(_) => {
                self.mismatch(node, "text", "write one value here, in quotes if it holds special characters");
                None
            }
        }
    }

    pub(super) fn truth(&mut self, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Scalar(Kind::Bool, text) => Some(text.eq_ignore_ascii_case("true")),
            _ => {
                self.mismatch(node, "true or false", "write true or false, without quotes");
                None
            }
        }
    }

    /// A whole number in a range. `what` it counts is for the message.
    pub(super) fn whole<T: TryFrom<i128>>(&mut self, node: &Node, what: &str, least: i128, most: i128) -> Option<T> {
        let Value::Scalar(Kind::Number, text) = &node.value else {
            let help = match &node.value {
                Value::Scalar(Kind::Text, text) if text.parse::<i64>().is_ok() => format!("drop the quotes: {text}"),
                _ => range(least, most),
            };
            self.mismatch(node, what, help);
            return None;
        };
        let help = range(least, most);
        // No number in range has more digits; longer ones would not fit the type.
        const DIGITS_MAX: usize = 30;
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        let is_whole = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_whole {
            self.wrong(node.span, format!("expected {what}, found {}", shown(text)), help);
            return None;
        }
        let number =
            if digits.len() > DIGITS_MAX { None } else { text.strip_prefix('+').unwrap_or(text).parse::<i128>().ok() };
        let in_range =
            number.filter(|number| (least..=most).contains(number)).and_then(|number| T::try_from(number).ok());
        if in_range.is_none() {
            self.wrong(node.span, format!("{} is out of range", shown(text)), help);
        }
        in_range
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, node: &Node, words: &[&'static str], values: &[T]) -> Option<T> {
        let all = words.join(", ");
        let Value::Scalar(Kind::Text, text) = &node.value else {
            self.mismatch(node, "a word", format!("write one of {all}"));
            return None;
        };
        let position = words.iter().position(|word| *word == &**text);
        if position.is_none() {
            let help = match nearest(text, words.iter().copied()) {
                Some(near) => format!("did you mean {near}? It can be one of {all}"),
                None => format!("write one of {all}"),
            };
            self.wrong(node.span, format!("`{}` is not known here", shown(text)), help);
        }
        position.and_then(|position| values.get(position)).copied()
    }

    pub(super) fn duration(&mut self, node: &Node) -> Option<Duration> {
        self.quantity(
            node,
            "a duration",
            "write for example 90s, 5m or 1h30m; a plain number means seconds",
            quantity::duration,
        )
    }

    pub(super) fn memory(&mut self, node: &Node) -> Option<u64> {
        self.quantity(node, "an amount of memory", "write for example 512MiB or 2GiB", quantity::memory)
    }

    pub(super) fn cpu(&mut self, node: &Node) -> Option<u32> {
        self.quantity(node, "a number of cores", "write for example 2, 0.5 or \"500m\"", quantity::cpu_milli)
    }

    fn quantity<T>(&mut self, node: &Node, what: &str, help: &str, read: fn(&str) -> Result<T, Wrong>) -> Option<T> {
        let Value::Scalar(kind @ (Kind::Text | Kind::Number), text) = &node.value else {
            self.mismatch(node, what, help);
            return None;
        };
        // YAML and TOML allow a sign before any number.
        let text = if *kind == Kind::Number { text.strip_prefix('+').unwrap_or(text) } else { text };
        match read(text) {
            Ok(value) => Some(value),
            Err((message, help)) => {
                self.wrong(node.span, message, help);
                None
            }
        }
    }

    /// A map of text to text.
    pub(super) fn texts(&mut self, node: &Node, help: &str) -> Option<BTreeMap<String, String>> {
        let entries = self.entries(node, "a map", help)?;
        let mut texts = BTreeMap::new();
        for (_, entry) in entries {
            let read = |decoder: &mut Self| decoder.text(&entry.value);
            if let Some(text) = self.within(Segment::Key(entry.key.to_string().into()), read) {
                texts.insert(entry.key.to_string(), text);
            }
        }
        Some(texts)
    }

    /// A list of text.
    pub(super) fn words(&mut self, node: &Node, help: &str) -> Option<Vec<String>> {
        self.list(node, "a list", help, String::new, Self::text)
    }
}
