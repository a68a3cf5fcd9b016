//! Parameters of a spec: what may be given when it is run, and what is made of what was given.
//!
//! There is no templating. A parameter's value takes the place of `{$param: NAME}` as a *value* (see
//! [`substitute`](super::substitute)), so what it may be there is for the decoder's own rules to say; here it only gets its type.

use std::collections::BTreeMap;

use super::finding::shown;
use super::from_json::{self, is_number};
use super::limits::{ARGUMENTS_BYTES_MAX, WORD_COST_BYTES};
use super::model::{Argument, Arguments};
use super::node::{Kind, Node, Span, Value};
use super::suggest::nearest;

/// What a parameter's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// Text; numbers and truth values are taken as they are written.
    Text,
    /// A whole number.
    Int,
    /// Any number.
    Number,
    /// True or false.
    Bool,
    /// A list of single values.
    List,
}

/// Words of `type`.
pub(super) const TYPES: &[&str] = &["text", "int", "number", "bool", "list"];
/// What they stand for.
pub(super) const TYPE_VALUES: &[ParamType] =
    &[ParamType::Text, ParamType::Int, ParamType::Number, ParamType::Bool, ParamType::List];

impl ParamType {
    /// As it is written in a spec.
    #[must_use]
    pub fn name(self) -> &'static str {
        let position = TYPE_VALUES.iter().position(|value| *value == self).expect("the two tables have all types");
        TYPES[position]
    }

    /// What is wanted, for a message.
    fn wanted(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "a whole number",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::List => "a list",
        }
    }
}

/// A declared parameter.
#[derive(Debug, Clone)]
pub struct Param {
    pub(super) kind: ParamType,
    /// Of a list's elements.
    pub(super) of: ParamType,
    /// It has been checked.
    pub(super) default: Option<Bound>,
    pub(super) min: Option<Limit>,
    pub(super) max: Option<Limit>,
    /// Checked and of the type (of a list: of its elements); empty: any value.
    pub(super) choices: Vec<Bound>,
    pub(super) help: String,
    /// What its declaration says cannot be read: its values are not looked at.
    pub(super) is_broken: bool,
}

/// An end of a range, with how it was written.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub(super) text: String,
    pub(super) value: f64,
}

/// A value that has a parameter's type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bound {
    Scalar(Kind, Box<str>),
    List(Vec<Bound>),
}

impl Bound {
    /// The value where it is used: everything of it stands at that place.
    pub(super) fn at(&self, span: Span) -> Node {
        match self {
            Self::Scalar(kind, text) => Node::scalar(*kind, text.clone(), span),
            Self::List(items) => Node { value: Value::List(items.iter().map(|item| item.at(span)).collect()), span },
        }
    }

    /// For a message: `7`, `[a, b]`.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Scalar(_, text) => text.to_string(),
            Self::List(items) => format!("[{}]", items.iter().map(Self::show).collect::<Vec<_>>().join(", ")),
        }
    }
}

impl Argument {
    /// What it is, with its article.
    fn what(&self) -> &'static str {
        match self {
            Self::Word(_) | Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
            Self::Null => "nothing",
            Self::Open => "an unknown value",
        }
    }

    /// What it counts against [`ARGUMENTS_BYTES_MAX`].
    fn bytes(&self) -> usize {
        WORD_COST_BYTES
            + match self {
                Self::Word(text) | Self::Text(text) | Self::Number(text) => text.len(),
                Self::Bool(_) | Self::Open | Self::Null => 0,
                Self::List(items) => items.iter().map(Self::bytes).sum(),
                Self::Map(values) => values.iter().map(|(key, value)| key.len() + value.bytes()).sum(),
            }
    }

    /// A value as it stands in a tree whose keys are not given twice.
    fn of_node(node: &Node) -> Self {
        match &node.value {
            Value::Scalar(Kind::Null, _) => Self::Null,
            Value::Scalar(Kind::Bool, text) => Self::Bool(text.eq_ignore_ascii_case("true")),
            Value::Scalar(Kind::Number, text) => Self::Number(text.to_string()),
            Value::Scalar(Kind::Text | Kind::Date, text) => Self::Text(text.to_string()),
            Value::Scalar(Kind::Open, _) => Self::Open,
            Value::List(items) => Self::List(items.iter().map(Self::of_node).collect()),
            Value::Map(entries) => {
                Self::Map(entries.iter().map(|entry| (entry.key.to_string(), Self::of_node(&entry.value))).collect())
            }
        }
    }
}

/// Message and help.
pub(super) type Wrong = (String, String);

impl Param {
    /// What its values are.
    #[must_use]
    pub fn kind(&self) -> ParamType {
        self.kind
    }

    /// What it is for, in its author's words.
    #[must_use]
    pub fn help(&self) -> &str {
        &self.help
    }

    /// What holds when nothing is given, as text; `None`: something must be given.
    #[must_use]
    pub fn default_text(&self) -> Option<String> {
        self.default.as_ref().map(Bound::show)
    }

    /// Gives a value the parameter's type, or says why it cannot have it.
    pub(super) fn bind(&self, given: &Argument) -> Result<Bound, Wrong> {
        let bound = match (self.kind, given) {
            (ParamType::List, Argument::List(items)) => {
                Bound::List(items.iter().map(|item| self.element(item)).collect::<Result<_, _>>()?)
            }
            (ParamType::List, Argument::Word(text)) => {
                let items = words(text)?;
                Bound::List(items.iter().map(|item| self.element(item)).collect::<Result<_, _>>()?)
            }
            (kind, given) => typed(kind, given)?,
        };
        self.in_range(&bound)?;
        match &bound {
            // Its elements have been compared.
            Bound::List(_) => {}
            scalar => self.chosen(scalar)?,
        }
        Ok(bound)
    }

    fn element(&self, given: &Argument) -> Result<Bound, Wrong> {
        let element = typed(self.of, given)?;
        self.chosen(&element)?;
        Ok(element)
    }

    fn chosen(&self, value: &Bound) -> Result<(), Wrong> {
        if self.choices.is_empty() || self.choices.contains(value) {
            return Ok(());
        }
        let all: Vec<String> = self.choices.iter().map(Bound::show).collect();
        let text = value.show();
        let listed = shown(&all.join(", "));
        let help = match nearest(&text, all.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}? It can be one of {listed}"),
            None => format!("give one of {listed}"),
        };
        Err((format!("`{}` is none of the choices", shown(&text)), help))
    }

    /// Numbers by their value, lists by their length.
    fn in_range(&self, value: &Bound) -> Result<(), Wrong> {
        let (measure, what) = match value {
            Bound::List(items) => (items.len() as f64, "the number of elements"),
            Bound::Scalar(Kind::Number, text) => (text.parse().unwrap_or(f64::NAN), "the value"),
            Bound::Scalar(..) => return Ok(()),
        };
        let fits = self.min.as_ref().is_none_or(|min| measure >= min.value)
            && self.max.as_ref().is_none_or(|max| measure <= max.value);
        if fits {
            return Ok(());
        }
        let help = match (&self.min, &self.max) {
            (Some(min), Some(max)) => format!("{what} can be {} to {}", min.text, max.text),
            (Some(min), None) => format!("{what} is at least {}", min.text),
            (None, Some(max)) => format!("{what} is at most {}", max.text),
            (None, None) => String::new(),
        };
        Err((format!("`{}` is out of range", shown(&value.show())), help))
    }
}

/// A single value of a type.
pub(super) fn typed(kind: ParamType, given: &Argument) -> Result<Bound, Wrong> {
    let mismatch = || (format!("expected {}, found {}", kind.wanted(), given.what()), example(kind).to_owned());
    let not_one = |text: &str| (format!("`{}` is not {}", shown(text), kind.wanted()), example(kind).to_owned());
    match (kind, given) {
        (ParamType::Text, Argument::Word(text) | Argument::Text(text) | Argument::Number(text)) => {
            Ok(Bound::Scalar(Kind::Text, text.as_str().into()))
        }
        (ParamType::Text, Argument::Bool(truth)) => Ok(Bound::Scalar(Kind::Text, truth.to_string().into())),
        (ParamType::Int | ParamType::Number, Argument::Word(text) | Argument::Number(text)) => {
            let number = text.strip_prefix('+').unwrap_or(text);
            let fits = match kind {
                ParamType::Int => number.parse::<i64>().is_ok() && is_number(number),
                _ => is_number(number),
            };
            if fits { Ok(Bound::Scalar(Kind::Number, number.into())) } else { Err(not_one(text)) }
        }
        (ParamType::Bool, Argument::Bool(truth)) => Ok(Bound::Scalar(Kind::Bool, truth.to_string().into())),
        (ParamType::Bool, Argument::Word(text)) => match text.as_str() {
            "true" | "false" => Ok(Bound::Scalar(Kind::Bool, text.as_str().into())),
            other => Err(not_one(other)),
        },
        _ => Err(mismatch()),
    }
}

fn example(kind: ParamType) -> &'static str {
    match kind {
        ParamType::Text => "give one value, in quotes if it holds special characters",
        ParamType::Int => "give for example 8, without quotes",
        ParamType::Number => "give for example 0.5, without quotes",
        ParamType::Bool => "give true or false, without quotes",
        ParamType::List => "give for example [a, b]; on a command line a,b or JSON",
    }
}

/// A list on a command line: JSON, or words with commas between.
fn words(text: &str) -> Result<Vec<Argument>, Wrong> {
    if !text.trim_start().starts_with('[') {
        let words = text.split(',').map(|word| Argument::Word(word.trim().to_owned()));
        return Ok(if text.trim().is_empty() { Vec::new() } else { words.collect() });
    }
    let help = || "write JSON, for example [\"a\", \"b\"], or words with commas between: a,b".to_owned();
    let node =
        from_json::read(text).map_err(|finding| (format!("the list cannot be read: {}", finding.message), help()))?;
    match Argument::of_node(&node) {
        Argument::List(items) => Ok(items),
        other => Err((format!("expected a list, found {}", other.what()), help())),
    }
}

/// All parameters of a spec.
#[derive(Debug, Clone, Default)]
pub struct Params(pub(super) BTreeMap<String, Param>);

/// Values by parameter; `None`: it may have any value.
pub(super) type Values = BTreeMap<String, Option<Bound>>;

/// What becomes of parameters that have no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// They are problems.
    Refused,
    /// They may have any value.
    Open,
}

impl Params {
    /// In the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.0.iter().map(|(name, param)| (name.as_str(), param))
    }

    /// Whether each has a value when nothing is given.
    #[must_use]
    pub fn have_defaults(&self) -> bool {
        self.0.values().all(|param| param.default.is_some())
    }

    /// The value of each parameter, and what is wrong, by the parameter's name (empty: of all of them together).
    pub(super) fn bind(&self, given: &Arguments, missing: Missing) -> (Values, Vec<(String, Wrong)>) {
        let mut wrong = Vec::new();
        let bytes: usize = given.iter().map(|(name, value)| name.len() + value.bytes()).sum();
        if bytes > ARGUMENTS_BYTES_MAX {
            wrong.push((
                String::new(),
                (
                    format!("the arguments take more than {} KiB", ARGUMENTS_BYTES_MAX >> 10),
                    "put large data where the tasks can read it, and its place into an argument".to_owned(),
                ),
            ));
        }
        for name in given.keys().filter(|name| !self.0.contains_key(*name)) {
            wrong.push((name.clone(), self.unknown(name)));
        }
        let mut values = Values::new();
        for (name, param) in &self.0 {
            let value = match given.get(name) {
                _ if param.is_broken => None,
                Some(Argument::Open) => None,
                Some(argument) => match param.bind(argument) {
                    Ok(bound) => Some(bound),
                    Err(why) => {
                        wrong.push((name.clone(), why));
                        None
                    }
                },
                None => {
                    if param.default.is_none() && missing == Missing::Refused {
                        let help = format!("give it {}: -p {name}=…, or `with` in a spec", param.kind.wanted());
                        wrong.push((name.clone(), ("the parameter has no value".to_owned(), help)));
                    }
                    param.default.clone()
                }
            };
            values.insert(name.clone(), value);
        }
        (values, wrong)
    }

    /// Message and help for a name that is none of ours.
    pub(super) fn unknown(&self, name: &str) -> Wrong {
        let all: Vec<&str> = self.0.keys().map(String::as_str).collect();
        let help = match nearest(name, all.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if all.is_empty() => "the spec declares no `params`: add them, or leave it out".to_owned(),
            None => format!("the parameters are {}", shown(&all.join(", "))),
        };
        (format!("there is no parameter `{}`", shown(name)), help)
    }
}
