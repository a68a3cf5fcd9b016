//! `{$param: NAME}`, a map of that single key, becomes the parameter's value: on the tree of values, before it is decoded.
//!
//! So `tasks: {$param: shards}` needs no rule of its own, and nobody's text is ever searched for marks. `$` begins no name
//! of the language. What decides a spec's structure is written out: names of jobs and stages, the stages themselves, what they
//! wait for. So the set of stages and references of a text does not depend on arguments.
//!
//! **Invariant.** The tree keeps its shape but for what is replaced, so paths go on leading where they did; a replaced
//! value stands, with all of its parts, at the place of its mark.

use std::collections::HashMap;

use super::decode::Decoded;
use super::draft::locate;
use super::finding::{FieldPath, Finding, Findings, Point, Segment, shown};
use super::node::{Kind, Node, Span, Value};
use super::params::{Params, Values};

/// What a mark is written with.
pub(super) const MARK: &str = "$param";

/// Where a job's structure is decided: no marks there.
pub(super) const FIXED_OF_JOB: &[&str] = &["name", "namespace", "params", "outputs", "takes"];
pub(super) const FIXED_OF_STAGE: &[&str] = &["name", "inputs", "after"];

/// The places of a tree where values came in.
#[derive(Debug, Default)]
pub(super) struct Sites {
    /// By where they begin.
    by_start: HashMap<u32, Site>,
}

#[derive(Debug)]
struct Site {
    name: String,
    /// As text; `None`: nothing can be said about the value, nor about what follows from it.
    value: Option<String>,
}

/// Replaces all marks. Findings tell marks that are wrong.
pub(super) fn substitute(root: &mut Node, params: &Params, values: &Values, findings: &mut Findings) -> Sites {
    let mut walk = Walk { params, values, findings, sites: Sites::default(), path: Vec::new() };
    walk.job(root);
    walk.sites
}

/// Whether the value is a mark, and for what.
pub(super) fn is_mark(node: &Node) -> bool {
    node.get(MARK).is_some()
}

struct Walk<'a> {
    params: &'a Params,
    values: &'a Values,
    findings: &'a mut Findings,
    sites: Sites,
    path: Vec<Segment>,
}

impl Walk<'_> {
    fn wrong(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        let path = FieldPath::job(self.path.clone());
        let (message, help) = (message.into(), help.into());
        self.findings.push(Finding { path, point: Point::Value, span: Some(span), first: None, message, help });
    }

    fn within(&mut self, key: &str, act: impl FnOnce(&mut Self)) {
        self.path.push(Segment::Key(key.to_owned().into()));
        act(self);
        self.path.pop();
    }

    /// A job: the whole text, or one that stands in a stage.
    fn job(&mut self, node: &mut Node) {
        if is_mark(node) {
            return self.refuse(node);
        }
        let Value::Map(entries) = &mut node.value else { return };
        for entry in entries {
            let (key, value) = (&*entry.key, &mut entry.value);
            self.within(key, |walk| match key {
                "stages" => walk.stages(value),
                // Their declarations were read, and know of no marks.
                "params" => {}
                _ if FIXED_OF_JOB.contains(&key) => walk.fixed(value),
                // A job of one stage has the stage's keys at its top.
                _ => walk.stage_field(key, value),
            });
        }
    }

    fn stages(&mut self, node: &mut Node) {
        if is_mark(node) {
            return self.refuse(node);
        }
        match &mut node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let (key, value) = (&*entry.key, &mut entry.value);
                    self.within(key, |walk| walk.stage(value));
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.push(Segment::Index(index));
                    self.stage(item);
                    self.path.pop();
                }
            }
            Value::Scalar(..) => {}
        }
    }

    fn stage(&mut self, node: &mut Node) {
        if is_mark(node) {
            return self.refuse(node);
        }
        let Value::Map(entries) = &mut node.value else { return };
        for entry in entries {
            let (key, value) = (&*entry.key, &mut entry.value);
            self.within(key, |walk| walk.stage_field(key, value));
        }
    }

    fn stage_field(&mut self, key: &str, value: &mut Node) {
        match key {
            "job" => match &value.value {
                Value::Map(_) => self.job(value),
                Value::Scalar(..) | Value::List(_) => {}
            },
            _ if FIXED_OF_STAGE.contains(&key) => self.fixed(value),
            _ => self.value(value),
        }
    }

    /// A mark where none can stand.
    fn refuse(&mut self, node: &mut Node) {
        self.wrong(
            node.span,
            "what a job is made of cannot be a parameter",
            "write it out: names, stages and what they wait for are fixed, so that a job's shape is known before it is run",
        );
        self.open(node, String::new());
    }

    fn fixed(&mut self, node: &mut Node) {
        if is_mark(node) {
            return self.refuse(node);
        }
        match &mut node.value {
            Value::Map(entries) => entries.iter_mut().for_each(|entry| self.fixed(&mut entry.value)),
            Value::List(items) => items.iter_mut().for_each(|item| self.fixed(item)),
            Value::Scalar(..) => {}
        }
    }

    fn open(&mut self, node: &mut Node, name: String) {
        self.sites.by_start.insert(node.span.start, Site { name, value: None });
        node.value = Value::Scalar(Kind::Open, "".into());
    }

    fn value(&mut self, node: &mut Node) {
        if is_mark(node) {
            return self.mark(node);
        }
        match &mut node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let (key, value) = (&*entry.key, &mut entry.value);
                    self.within(key, |walk| walk.value(value));
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.push(Segment::Index(index));
                    self.value(item);
                    self.path.pop();
                }
            }
            Value::Scalar(..) => {}
        }
    }

    fn mark(&mut self, node: &mut Node) {
        let Value::Map(entries) = &node.value else { return };
        let name = match entries.as_slice() {
            [only] => match &only.value.value {
                Value::Scalar(Kind::Text, name) => name.to_string(),
                _ => {
                    let span = only.value.span;
                    self.wrong(
                        span,
                        format!("expected the name of a parameter, found {}", only.value.what()),
                        "write {$param: NAME}",
                    );
                    return self.open(node, String::new());
                }
            },
            _ => {
                self.wrong(
                    node.span,
                    "`$param` stands alone in its map",
                    "delete the other keys: {$param: NAME} is the whole value",
                );
                return self.open(node, String::new());
            }
        };
        match self.values.get(&name) {
            Some(Some(bound)) => {
                let span = node.span;
                *node = bound.at(span);
                self.sites.by_start.insert(span.start, Site { name, value: Some(shown(&bound.show())) });
            }
            // It has no value yet, or none that could be read, which was said where it is declared.
            Some(None) => self.open(node, name),
            None => {
                let (message, help) = self.params.unknown(&name);
                self.wrong(node.span, message, help);
                self.open(node, name);
            }
        }
    }
}

impl Sites {
    /// What is said about an open value is worth nothing; what is said about a value that came in says where it came from.
    pub(super) fn judge(&self, findings: Findings, root: &Node, decoded: &Decoded) -> Findings {
        if self.by_start.is_empty() {
            return findings;
        }
        findings.filter_map(|mut finding| {
            let span = finding.span.unwrap_or_else(|| locate(root, Some(decoded), &finding));
            match self.by_start.get(&span.start) {
                None => Some(finding),
                Some(Site { value: None, .. }) => None,
                Some(Site { name, value: Some(value) }) => {
                    finding.help.push_str(&format!("; the parameter `{name}` is {value} here"));
                    Some(finding)
                }
            }
        })
    }
}
