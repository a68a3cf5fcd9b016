//! The JSON Schema (draft 2020-12) of the spec language, for editors and for people who generate specs.
//!
//! It says what a spec looks like; what depends on several fields at once (cycles, sizes, names of stages) only
//! [`check`](super::check()) can say.

use serde_json::{Map, Value, json};

use super::keys::{
    FOR_EACH, JOB, JOB_ALONE, Key, LABEL_RULE, PARAM, PLACEMENT, PREFERENCE, RESOURCES, RETRIES, STAGE, STAGE_NAME,
    named_resource, reference,
};
use super::limits::{NAME_CHARS_MAX, PARAM_NAME_CHARS_MAX};
use super::params::TYPES;
use super::substitute::{FIXED_OF_JOB, FIXED_OF_STAGE, MARK};

/// The schema. The same tables of keys that the decoder uses, so that the two cannot drift apart.
#[must_use]
pub fn schema() -> Value {
    let pattern = format!(r"^[^\p{{C}}\s]([^\p{{C}}\p{{Zl}}\p{{Zp}}]{{0,{}}}[^\p{{C}}\s])?$", NAME_CHARS_MAX - 2);
    // A single stage's keys stand at the top level; where both levels know a key, the job's meaning holds.
    let mut single = properties(STAGE.iter());
    single.append(&mut properties(JOB_ALONE.iter().chain(JOB).filter(|key| key.name != "stages")));
    let runs = json!([{"required": ["run"]}, {"required": ["job"]}]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Muster job",
        "oneOf": [
            {"type": "object", "properties": properties(JOB_ALONE.iter().chain(JOB)), "additionalProperties": false,
             "required": ["name", "stages"]},
            {"type": "object", "properties": single, "additionalProperties": false, "required": ["name"],
             "oneOf": runs.clone()},
        ],
        "$defs": {
            // What stands for a parameter's value.
            "mark": {"type": "object", "properties": {MARK: {"type": "string"}}, "required": [MARK],
                     "additionalProperties": false},
            "param": {"oneOf": [{"enum": TYPES}, object(described(PARAM.iter().map(|key| (key, (key.shape)()))))]},
            "param_name": {"type": "string", "pattern": format!("^[A-Za-z][A-Za-z0-9_-]{{0,{}}}$", PARAM_NAME_CHARS_MAX - 1)},
            "argument": {"oneOf": [
                {"type": ["string", "number", "boolean"]},
                {"type": "array", "items": {"type": ["string", "number", "boolean"]}},
            ]},
            // A number or a truth value is taken as it is written.
            "text": or_mark(json!({"type": ["string", "number", "boolean"]})),
            "name": {"type": ["string", "number", "boolean"], "pattern": pattern},
            "argv": {"type": "array", "items": reference("text"), "minItems": 1},
            "env": {"type": "object", "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
                    "additionalProperties": reference("text")},
            "duration": duration(DURATION),
            "duration_or_never": duration(&format!("{DURATION}|^never$")),
            "budget": {"type": "integer", "minimum": 0, "maximum": u8::MAX},
            "retries": object(properties(RETRIES.iter())),
            "resources": {"type": "object", "properties": properties(RESOURCES.iter()),
                          "additionalProperties": or_mark(named_resource())},
            "texts": {"type": "array", "items": reference("text"), "minItems": 1},
            "placement": object(properties(PLACEMENT.iter())),
            "preference": {"type": "object", "properties": properties(PREFERENCE.iter()), "additionalProperties": false,
                           "required": ["label", "is"]},
            "label_rule": {"oneOf": [
                reference("text"),
                reference("texts"),
                {"type": "object", "properties": properties(LABEL_RULE.iter()), "additionalProperties": false,
                 "minProperties": 1, "maxProperties": 1},
            ]},
            "for_each": {"oneOf": [
                {"type": "array", "items": {"anyOf": [reference("text"), {"type": "object"}]}},
                {"type": "object", "properties": properties(FOR_EACH.iter()), "additionalProperties": false,
                 "minProperties": 1, "maxProperties": 1},
            ]},
            "stage": {"type": "object", "properties": properties(STAGE.iter()), "additionalProperties": false,
                      "oneOf": runs.clone()},
            "listed_stage": {"type": "object",
                             "properties": properties(STAGE.iter().chain(std::iter::once(&STAGE_NAME))),
                             "additionalProperties": false, "required": ["name"], "oneOf": runs},
            "definition": {"type": ["string", "number"]},
            "inline_job": {"type": "object", "properties": properties(JOB.iter()), "additionalProperties": false,
                           "required": ["stages"]},
        },
    })
}

const DURATION: &str = r"^[0-9]+(\.[0-9]+)?$|^([0-9]+(\.[0-9]+)? ?(d|h|m|s|ms) ?)+$";

fn duration(pattern: &str) -> Value {
    json!({"oneOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": pattern}]})
}

fn object(properties: Map<String, Value>) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

/// The same, or a parameter's value.
fn or_mark(shape: Value) -> Value {
    json!({"anyOf": [shape, reference("mark")]})
}

/// Keys whose value is written out.
fn is_fixed(key: &Key) -> bool {
    FIXED_OF_JOB.contains(&key.name) || FIXED_OF_STAGE.contains(&key.name) || ["stages", "job"].contains(&key.name)
}

fn properties<'a>(keys: impl Iterator<Item = &'a Key>) -> Map<String, Value> {
    described(keys.map(|key| (key, if is_fixed(key) { (key.shape)() } else { or_mark((key.shape)()) })))
}

fn described<'a>(shapes: impl Iterator<Item = (&'a Key, Value)>) -> Map<String, Value> {
    shapes
        .map(|(key, mut shape)| {
            if let Some(fields) = shape.as_object_mut() {
                fields.insert("description".to_owned(), Value::from(key.about));
            }
            (key.name.to_owned(), shape)
        })
        .collect()
}
