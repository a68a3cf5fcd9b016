//! `for_each`: the items of a stage.

use std::collections::BTreeMap;

use super::Decoder;
use crate::spec::draft::ForEach;
use crate::spec::finding::{Segment, shown};
use crate::spec::from_json::is_number;
use crate::spec::keys::FOR_EACH;
use crate::spec::limits::{ITEMS_BYTES_MAX, TASKS_PER_STAGE_MAX};
use crate::spec::node::{Entry, Kind, Node, Value};

/// Items that stand in the spec, or where they come from.
pub(super) enum Found {
    Items(Vec<String>),
    Later(ForEach),
}

const HELP: &str = "write a list, {lines: FILE}, {glob: PATTERN} or {matrix: {name: [values]}}";

impl Decoder {
    pub(super) fn for_each(&mut self, node: &Node) -> Option<Found> {
        if matches!(node.value, Value::List(_)) {
            return self.list(node, "items", HELP, String::new, Self::item).map(Found::Items);
        }
        let mut fields = self.fields(node, &[FOR_EACH], "a list or a map", HELP)?;
        let given: Vec<_> =
            FOR_EACH.iter().filter_map(|key| fields.get(key.name).map(|entry| (key.name, entry))).collect();
        match given.as_slice() {
            [("lines", entry)] => {
                self.field(Some(entry), "lines", Self::file_name).map(ForEach::Lines).map(Found::Later)
            }
            [("glob", entry)] => self.field(Some(entry), "glob", Self::file_name).map(ForEach::Glob).map(Found::Later),
            [(_, entry)] => self.field(Some(entry), "matrix", Self::matrix).map(Found::Items),
            [] => {
                if FOR_EACH.iter().all(|key| fields.is_plainly_missing(key.name)) {
                    self.wrong(node.span, "nothing says where the items come from", HELP);
                }
                None
            }
            [_, (_, second), ..] => {
                self.wrong(
                    second.key_span,
                    "the items come from one place only",
                    "keep one of lines, glob and matrix; use two stages for two sources",
                );
                None
            }
        }
    }

    fn file_name(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node)?;
        if name.is_empty() {
            self.wrong(node.span, "the name is empty", "write a path relative to the spec's file");
            return None;
        }
        Some(name)
    }

    /// An item of a list: text as it is, a map as JSON.
    fn item(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Map(_) => {
                let mut json = String::new();
                self.json(node, &mut json).then_some(json)
            }
            Value::Scalar(..) => self.text(node),
            Value::List(_) => {
                self.mismatch(node, "an item", "write text, or a map, which becomes JSON");
                None
            }
        }
    }

    /// Every combination, the last name turning fastest.
    fn matrix(&mut self, node: &Node) -> Option<Vec<String>> {
        let entries =
            self.entries(node, "a map of names to lists", "write for example {size: [1, 2], seed: [7, 8]}")?;
        if entries.is_empty() {
            self.wrong(node.span, "the matrix has no names", "write for example {size: [1, 2], seed: [7, 8]}");
            return None;
        }
        let axes: Vec<Option<Vec<String>>> = entries.iter().map(|(_, entry)| self.axis(entry)).collect();
        let axes: Vec<Vec<String>> = axes.into_iter().collect::<Option<_>>()?;
        let combinations = axes.iter().try_fold(1u64, |product, axis| product.checked_mul(axis.len() as u64));
        let Some(combinations) = combinations.filter(|&combinations| combinations <= TASKS_PER_STAGE_MAX) else {
            let sizes: Vec<String> = axes.iter().map(|axis| axis.len().to_string()).collect();
            self.wrong(
                node.span,
                format!("the matrix has more than {TASKS_PER_STAGE_MAX} combinations: {}", shown(&sizes.join(" × "))),
                "shorten its lists, or split it into several jobs",
            );
            return None;
        };
        // Keys are sorted in the item, while the order of the items follows the text.
        let names: Vec<String> =
            entries.iter().map(|(_, entry)| serde_json::Value::from(&*entry.key).to_string()).collect();
        let mut sorted: Vec<usize> = (0..entries.len()).collect();
        sorted.sort_by_key(|&axis| &entries[axis].1.key);
        let (mut items, mut bytes) = (Vec::new(), 0);
        let mut chosen = vec![0usize; axes.len()];
        for _ in 0..combinations {
            let fields: Vec<String> =
                sorted.iter().map(|&axis| format!("{}:{}", names[axis], axes[axis][chosen[axis]])).collect();
            let item = format!("{{{}}}", fields.join(","));
            bytes += item.len();
            if bytes > ITEMS_BYTES_MAX {
                self.wrong(
                    node.span,
                    format!("the items of the matrix take more than {} MiB", ITEMS_BYTES_MAX >> 20),
                    "shorten its values, or split it into several jobs",
                );
                return None;
            }
            items.push(item);
            for axis in (0..axes.len()).rev() {
                chosen[axis] += 1;
                if chosen[axis] < axes[axis].len() {
                    break;
                }
                chosen[axis] = 0;
            }
        }
        Some(items)
    }

    /// The values of one name, as JSON.
    fn axis(&mut self, entry: &Entry) -> Option<Vec<String>> {
        self.within(Segment::Key(entry.key.to_string().into()), |decoder| {
            let value = |decoder: &mut Self, node: &Node| {
                let mut json = String::new();
                decoder.json(node, &mut json).then_some(json)
            };
            let axis =
                decoder.list(&entry.value, "a list of values", "write for example [1, 2, 3]", String::new, value)?;
            if axis.is_empty() {
                decoder.wrong(
                    entry.value.span,
                    "an empty list leaves the matrix without any combination",
                    "give it at least one value, or delete the name",
                );
                return None;
            }
            Some(axis)
        })
    }

    /// A value as JSON on one line, keys sorted. False if it has none, which is then reported.
    fn json(&mut self, node: &Node, out: &mut String) -> bool {
        match &node.value {
            Value::Scalar(Kind::Text | Kind::Date, text) => out.push_str(&serde_json::Value::from(&**text).to_string()),
            Value::Scalar(Kind::Null | Kind::Open, _) => out.push_str("null"),
            Value::Scalar(Kind::Bool, text) => out.push_str(&text.to_lowercase()),
            Value::Scalar(Kind::Number, text) if is_number(text) => out.push_str(text),
            Value::Scalar(Kind::Number, text) => {
                let (text, help) = (shown(text), "put it into quotes, or write it the way JSON does: 12, -0.5, 1e6");
                self.wrong(node.span, format!("items are JSON, which cannot write {text} as a number"), help);
                return false;
            }
            Value::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    if !self.within(Segment::Index(index), |decoder| decoder.json(item, out)) {
                        return false;
                    }
                }
                out.push(']');
            }
            Value::Map(_) => {
                let entries = self.entries(node, "a map", "").unwrap_or_default();
                let sorted: BTreeMap<&str, &Entry> = entries.iter().map(|(_, entry)| (&*entry.key, *entry)).collect();
                out.push('{');
                for (index, (key, entry)) in sorted.into_iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    out.push_str(&serde_json::Value::from(key).to_string());
                    out.push(':');
                    let segment = Segment::Key(key.to_owned().into());
                    if !self.within(segment, |decoder| decoder.json(&entry.value, out)) {
                        return false;
                    }
                }
                out.push('}');
            }
        }
        true
    }
}
