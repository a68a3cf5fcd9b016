//! `params`: the declarations.

use super::Decoder;
use crate::spec::finding::{FieldPath, Findings, Segment, shown};
use crate::spec::from_json::is_number;
use crate::spec::keys::PARAM;
use crate::spec::limits::{PARAM_NAME_CHARS_MAX, PARAMS_MAX};
use crate::spec::node::{Entry, Kind, Node, Value};
use crate::spec::params::{Limit, Param, ParamType, Params, TYPE_VALUES, TYPES, typed};

const HELP: &str = "write a type (text, int, number, bool, list) or a map such as {type: int, default: 8, help: …}";

/// Reads what a spec declares. What cannot be read is reported and stands in the answer as broken, so that its use is known.
pub(in crate::spec) fn params(root: &Node) -> (Params, Findings) {
    let mut decoder = Decoder { findings: Findings::default(), path: FieldPath::default() };
    let Some(entry) = root.get("params") else { return (Params::default(), decoder.findings) };
    let declared = decoder.within(Segment::key("params"), |decoder| decoder.declarations(&entry.value));
    (declared, decoder.findings)
}

impl Decoder {
    fn declarations(&mut self, node: &Node) -> Params {
        let entries = self.entries(node, "a map of parameters", "write for example {shards: {type: int, default: 8}}");
        let entries = entries.unwrap_or_default();
        if entries.len() > PARAMS_MAX {
            let message = format!("{} parameters are more than the {PARAMS_MAX} that a spec may have", entries.len());
            self.wrong(node.span, message, "put what belongs together into one parameter that is a list");
        }
        let mut params = Params::default();
        for (_, entry) in entries.into_iter().take(PARAMS_MAX) {
            let param = self.within(Segment::Key(entry.key.to_string().into()), |decoder| decoder.declaration(entry));
            params.0.insert(entry.key.to_string(), param);
        }
        params
    }

    fn declaration(&mut self, entry: &Entry) -> Param {
        let name = &*entry.key;
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
            && name.len() <= PARAM_NAME_CHARS_MAX;
        if !is_name {
            let message = format!("`{}` cannot name a parameter", shown(name));
            let help = format!("use 1 to {PARAM_NAME_CHARS_MAX} of letters, digits, _ and -, a letter first");
            self.wrong(entry.key_span, message, help);
        }
        let node = &entry.value;
        let mut param = Param {
            kind: ParamType::Text,
            of: ParamType::Text,
            default: None,
            min: None,
            max: None,
            choices: Vec::new(),
            help: String::new(),
            is_broken: true,
        };
        if let Value::Scalar(Kind::Text, _) = &node.value {
            if let Some(kind) = self.word(node, TYPES, TYPE_VALUES) {
                (param.kind, param.is_broken) = (kind, !is_name);
            }
            return param;
        }
        let Some(mut fields) = self.fields(node, &[PARAM], "a type or a map", HELP) else { return param };
        let mut is_sound = is_name;
        let mut keep = |is_read: bool| is_sound &= is_read;

        let (kind, default) = (fields.get("type"), fields.get("default"));
        param.kind = match kind {
            Some(_) => {
                let kind = self.field(kind, "type", |decoder, node| decoder.word(node, TYPES, TYPE_VALUES));
                keep(kind.is_some());
                kind.unwrap_or(ParamType::Text)
            }
            None => {
                keep(fields.is_plainly_missing("type"));
                default.map_or(ParamType::Text, |entry| type_of(&entry.value))
            }
        };
        keep(default.is_some() || fields.is_plainly_missing("default"));
        if let Some(of) = fields.get("of") {
            let elements = |decoder: &mut Self, node: &Node| {
                if param.kind == ParamType::List {
                    return decoder.word(node, &TYPES[..TYPES.len() - 1], TYPE_VALUES);
                }
                decoder.wrong(of.key_span, "`of` says what a list's elements are", "delete it, or write type: list");
                None
            };
            let of = self.field(Some(of), "of", elements);
            keep(of.is_some());
            param.of = of.unwrap_or(ParamType::Text);
        }
        for (name, end) in [("min", &mut param.min), ("max", &mut param.max)] {
            let Some(entry) = fields.get(name) else { continue };
            *end = self.field(Some(entry), name, |decoder, node| decoder.limit(node, param.kind));
            keep(end.is_some());
        }
        if let (Some(min), Some(max)) = (&param.min, &param.max)
            && min.value > max.value
        {
            self.wrong(node.span, "`min` is more than `max`", "no value would be in range: mend one of them");
            keep(false);
        }
        if let Some(text) = fields.get("help") {
            param.help = self.field(Some(text), "help", Self::text).unwrap_or_default();
        }
        if let Some(choices) = fields.get("choices") {
            let of = if param.kind == ParamType::List { param.of } else { param.kind };
            let read = |decoder: &mut Self, node: &Node| decoder.choices(node, of);
            let choices = self.field(Some(choices), "choices", read);
            keep(choices.is_some());
            param.choices = choices.unwrap_or_default();
        }
        param.is_broken = !is_sound;
        if let Some(default) = default
            && is_sound
        {
            param.default = self.field(Some(default), "default", |decoder, node| {
                let given = decoder.argument(node);
                let bound = param.bind(&given);
                bound.map_err(|(message, help)| decoder.wrong(node.span, message, help)).ok()
            });
            param.is_broken = param.default.is_none();
        }
        param
    }

    fn limit(&mut self, node: &Node, kind: ParamType) -> Option<Limit> {
        match (kind, &node.value) {
            (ParamType::Int | ParamType::Number | ParamType::List, Value::Scalar(Kind::Number, text))
                if is_number(text) =>
            {
                Some(Limit { text: text.to_string(), value: text.parse().ok()? })
            }
            (ParamType::Text | ParamType::Bool, _) => {
                let message = format!("a parameter of type {} has no range", kind.name());
                self.wrong(node.span, message, "delete it, or write type: int; `choices` lists what a text can be");
                None
            }
            _ => {
                self.mismatch(node, "a number", "write for example 1; of a list it is the number of elements");
                None
            }
        }
    }

    fn choices(&mut self, node: &Node, of: ParamType) -> Option<Vec<crate::spec::params::Bound>> {
        const HELP: &str = "write a list of the values that it can have, for example [daily, weekly]";
        let one = |decoder: &mut Self, node: &Node| {
            let given = decoder.argument(node);
            Some(typed(of, &given).map_err(|(message, help)| decoder.wrong(node.span, message, help)).ok())
        };
        let read = self.list(node, "a list", HELP, || None, one)?;
        if read.is_empty() {
            self.wrong(node.span, "there is nothing to choose from", HELP);
            return None;
        }
        read.into_iter().collect()
    }
}

/// What a default says about its parameter.
fn type_of(default: &Node) -> ParamType {
    match &default.value {
        Value::Scalar(Kind::Bool, _) => ParamType::Bool,
        Value::Scalar(Kind::Number, text) if text.parse::<i64>().is_ok() => ParamType::Int,
        Value::Scalar(Kind::Number, _) => ParamType::Number,
        Value::List(_) => ParamType::List,
        Value::Scalar(..) | Value::Map(_) => ParamType::Text,
    }
}
