//! The schema, the decoder and the documentation tell the same story.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_graph::groups::{GROUP_DEPTH_MAX, GROUP_NAME_CHARS_MAX};
use muster_graph::spec::{Files, Format, limits, read, schema};
use serde_json::{Value, json};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Why a value does not have the shape that a schema says; `None` if it has. Knows the keywords that the schema uses,
/// and fails on any other, so that none is passed over in silence. Patterns are compared elsewhere.
fn mismatch(root: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let keywords = schema.as_object().unwrap();
    let size = |least: &Value| usize::try_from(least.as_u64().unwrap()).unwrap();
    let wrong = |why: String| Some(format!("{at}: {why}"));
    for (keyword, wanted) in keywords {
        let problem = match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" | "pattern" | "propertyNames" => None,
            "$ref" => {
                let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                let target = root["$defs"].get(name).unwrap_or_else(|| panic!("no definition of {name}"));
                mismatch(root, target, value, at)
            }
            "type" => {
                let types = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
                let fits = types.iter().any(|kind| match kind.as_str().unwrap() {
                    "string" => value.is_string(),
                    "number" => value.is_number(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    "array" => value.is_array(),
                    "object" => value.is_object(),
                    other => panic!("unknown type {other}"),
                });
                if fits { None } else { wrong(format!("{value} is not {wanted}")) }
            }
            "enum" if !wanted.as_array().unwrap().contains(value) => wrong(format!("{value} is not one of {wanted}")),
            "const" if value != wanted => wrong(format!("{value} is not {wanted}")),
            "enum" | "const" => None,
            "oneOf" => {
                let fitting =
                    wanted.as_array().unwrap().iter().filter(|one| mismatch(root, one, value, at).is_none()).count();
                if fitting == 1 { None } else { wrong(format!("fits {fitting} of {wanted}")) }
            }
            "anyOf" => {
                let fits = wanted.as_array().unwrap().iter().any(|one| mismatch(root, one, value, at).is_none());
                if fits { None } else { wrong(format!("fits none of {wanted}")) }
            }
            "properties" => value.as_object().and_then(|fields| {
                fields.iter().find_map(|(key, field)| {
                    wanted.get(key).and_then(|schema| mismatch(root, schema, field, &format!("{at}.{key}")))
                })
            }),
            "additionalProperties" => value.as_object().and_then(|fields| {
                let known = keywords.get("properties");
                let others = fields.iter().filter(|(key, _)| known.is_none_or(|known| known.get(key).is_none()));
                others.map(|(key, field)| (format!("{at}.{key}"), field)).find_map(|(at, field)| match wanted {
                    Value::Bool(false) => Some(format!("{at}: unknown key")),
                    schema => mismatch(root, schema, field, &at),
                })
            }),
            "required" => value.as_object().and_then(|fields| {
                let missing = wanted.as_array().unwrap().iter().find(|key| !fields.contains_key(key.as_str().unwrap()));
                missing.and_then(|key| wrong(format!("{key} is missing")))
            }),
            "items" => value.as_array().and_then(|items| {
                items.iter().enumerate().find_map(|(i, item)| mismatch(root, wanted, item, &format!("{at}[{i}]")))
            }),
            "minItems" if value.as_array().is_some_and(|items| items.len() < size(wanted)) => wrong("too few".into()),
            "maxItems" if value.as_array().is_some_and(|items| items.len() > size(wanted)) => wrong("too many".into()),
            "minProperties" if value.as_object().is_some_and(|map| map.len() < size(wanted)) => wrong("too few".into()),
            "maxProperties" if value.as_object().is_some_and(|map| map.len() > size(wanted)) => {
                wrong("too many".into())
            }
            "minLength" if value.as_str().is_some_and(|text| text.chars().count() < size(wanted)) => {
                wrong("short".into())
            }
            "minimum" if value.as_f64().is_some_and(|n| n < wanted.as_f64().unwrap()) => wrong("too small".into()),
            "maximum" if value.as_f64().is_some_and(|n| n > wanted.as_f64().unwrap()) => wrong("too large".into()),
            "minItems" | "maxItems" | "minProperties" | "maxProperties" | "minLength" | "minimum" | "maximum" => None,
            other => panic!("this test does not know the keyword {other}"),
        };
        if problem.is_some() {
            return problem;
        }
    }
    None
}

fn shape_problem(value: &Value) -> Option<String> {
    let schema = schema();
    mismatch(&schema, &schema, value, "")
}

fn specs(folder: &str) -> Vec<(PathBuf, String)> {
    let paths = fs::read_dir(here("tests").join(folder)).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The text as plain data, if its format's own library reads it.
fn as_value(path: &Path, text: &str) -> Option<Value> {
    match Format::of_path(path).unwrap() {
        Format::Yaml => serde_saphyr::from_str(text).ok(),
        Format::Toml => toml::from_str(text).ok(),
        Format::Json => serde_json::from_str(text).ok(),
    }
}

#[test]
fn good_specs_have_the_schemas_shape() {
    for (path, text) in specs("good_specs") {
        let value = as_value(&path, &text).unwrap();
        // A date is text to us, while the TOML library makes a table of it.
        assert_eq!(shape_problem(&value), None, "{}", path.display());
    }
}

#[test]
fn what_the_decoder_calls_an_unknown_key_does_not_have_the_schemas_shape() {
    let mut seen = 0;
    for (path, text) in specs("bad_specs") {
        let Err(problems) = read(&text, Format::of_path(&path).unwrap()) else { continue };
        // The YAML library takes merge keys over, so what it answers does not hold the unknown key any more.
        let has_unknown_key = problems
            .0
            .iter()
            .any(|problem| problem.message.starts_with("unknown key") && !problem.message.contains("<<"));
        if let (true, Some(value)) = (has_unknown_key, as_value(&path, &text)) {
            seen += 1;
            assert!(shape_problem(&value).is_some(), "{}", path.display());
        }
    }
    assert!(seen >= 5, "the corpus has only {seen} specs with unknown keys");
}

/// Keys of an object in the schema.
fn keys(properties: &Value) -> BTreeSet<String> {
    properties.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_decoder_knows_exactly_the_schemas_keys() {
    let schema = schema();
    let definitions = &schema["$defs"];
    // Where a map of fixed keys stands, as a spec with a hole for its keys.
    type Hole = fn(Value) -> Value;
    let places: [(&str, &Value, Hole); 11] = [
        ("a job", &schema["oneOf"][0]["properties"], |map| map),
        ("a job of one stage", &schema["oneOf"][1]["properties"], |mut map| {
            map["run"] = json!("ls");
            map
        }),
        ("a stage", &definitions["stage"]["properties"], |map| json!({"name": "x", "stages": {"a": map}})),
        ("a listed stage", &definitions["listed_stage"]["properties"], |map| json!({"name": "x", "stages": [map]})),
        (
            "a parameter",
            &definitions["param"]["oneOf"][1]["properties"],
            |map| json!({"name": "x", "run": "ls", "params": {"a": map}}),
        ),
        (
            "a job in a stage",
            &definitions["inline_job"]["properties"],
            |map| json!({"name": "x", "stages": {"a": {"job": map}}}),
        ),
        ("retries", &definitions["retries"]["properties"], |map| json!({"name": "x", "run": "ls", "retries": map})),
        (
            "for_each",
            &definitions["for_each"]["oneOf"][1]["properties"],
            |map| json!({"name": "x", "run": "ls", "for_each": map}),
        ),
        (
            "placement",
            &definitions["placement"]["properties"],
            |map| json!({"name": "x", "run": "ls", "placement": map}),
        ),
        (
            "a preference",
            &definitions["preference"]["properties"],
            |map| json!({"name": "x", "run": "ls", "placement": {"prefer": [map]}}),
        ),
        (
            "a label's rule",
            &definitions["label_rule"]["oneOf"][2]["properties"],
            |map| json!({"name": "x", "run": "ls", "placement": {"require": {"zone": map}}}),
        ),
    ];
    let all: BTreeSet<String> = places.iter().flat_map(|(_, properties, _)| keys(properties)).collect();
    for (place, properties, with) in places {
        let known = keys(properties);
        for key in all.iter().cloned().chain(["nothing-like-it".to_owned()]) {
            if place == "a job" && key == "run" || key == "stages" && place == "a job of one stage" {
                continue;
            }
            let spec = with(json!({ key.as_str(): {"not": "any of our shapes"} }));
            let said = read(&spec.to_string(), Format::Json).map(|_| ()).map_err(|problems| problems.to_string());
            let text = said.err().unwrap_or_default();
            let is_unknown = text.contains(&format!("unknown key `{key}`"))
                || text.contains(&format!("`{key}` is the job's key"))
                || text.contains(&format!("`{key}` never counts in a job"))
                || text.contains(&format!("`{key}` is a stage's key"));
            // A single stage's key makes a job of one stage.
            let is_stage_key_at_top = place == "a job" && keys(&definitions["stage"]["properties"]).contains(&key);
            assert_eq!(is_unknown, !known.contains(&key) && !is_stage_key_at_top, "{place}, {key}: {text}");
        }
    }
}

#[test]
fn names_that_the_schema_allows_are_allowed() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    let schema = schema();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    type With = fn(Value) -> Value;
    let cases: [(&Value, With); 7] = [
        (
            &schema["$defs"]["param_name"]["pattern"],
            |text| json!({"name": "x", "run": "ls", "params": {text.as_str().unwrap(): {"default": 1}}, "env": {"A": {"$param": text}}}),
        ),
        (&schema["$defs"]["name"]["pattern"], |text| json!({"name": text, "run": "ls"})),
        (
            &schema["oneOf"][0]["properties"]["namespace"]["pattern"],
            |text| json!({"name": "x", "run": "ls", "namespace": text}),
        ),
        (
            &schema["oneOf"][0]["properties"]["group"]["anyOf"][0]["pattern"],
            |text| json!({"name": "x", "run": "ls", "group": text}),
        ),
        (
            &schema["$defs"]["env"]["propertyNames"]["pattern"],
            |text| json!({"name": "x", "run": "ls", "env": {text.as_str().unwrap(): "value"}}),
        ),
        (
            &schema["$defs"]["resources"]["properties"]["cpu"]["anyOf"][0]["oneOf"][1]["pattern"],
            |text| json!({"name": "x", "run": "ls", "resources": {"cpu": text}}),
        ),
        (
            &schema["$defs"]["resources"]["properties"]["memory"]["anyOf"][0]["oneOf"][1]["pattern"],
            |text| json!({"name": "x", "run": "ls", "resources": {"memory": text}}),
        ),
    ];
    for (pattern, spec) in cases {
        let pattern = pattern.as_str().unwrap();
        let texts = proptest::string::string_regex(pattern.trim_start_matches('^').trim_end_matches('$')).unwrap();
        for _ in 0..200 {
            let text = texts.new_tree(&mut runner).unwrap().current();
            let spec = spec(Value::from(text.as_str())).to_string();
            let problems = read(&spec, Format::Json).map(|_| ()).map_err(|problems| problems.to_string());
            // A pattern cannot say how large a number may be, nor how fine.
            let out_of_range = ["no executor has more", "is finer than", "whole number of bytes"];
            let is_fine = problems.as_ref().err().is_none_or(|text| out_of_range.iter().any(|why| text.contains(why)));
            assert!(is_fine, "{pattern}: {text:?}: {problems:?}");
        }
    }
}

struct AnyFile;

impl Files for AnyFile {
    fn lines(&self, _: &str) -> std::io::Result<Vec<String>> {
        Ok(vec!["line".to_owned()])
    }
    fn glob(&self, _: &str) -> std::io::Result<Vec<String>> {
        Ok(vec!["path".to_owned()])
    }
}

fn documentation() -> String {
    fs::read_to_string(here("../docs/spec.md")).unwrap()
}

#[test]
fn the_documentations_examples_read() {
    let text = documentation();
    let examples: Vec<&str> = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 4);
    for example in examples {
        let spec = read(example, Format::Yaml).and_then(|draft| draft.resolve(&AnyFile));
        assert!(spec.is_ok(), "{example}\n{}", spec.unwrap_err());
    }
}

#[test]
fn the_documentation_has_every_key() {
    let text = documentation();
    let schema = schema();
    let definitions = &schema["$defs"];
    let tables = [
        &schema["oneOf"][0]["properties"],
        &definitions["stage"]["properties"],
        &definitions["retries"]["properties"],
        &definitions["param"]["oneOf"][1]["properties"],
        &definitions["placement"]["properties"],
        &definitions["preference"]["properties"],
    ];
    for key in tables.into_iter().flat_map(keys) {
        assert!(text.contains(&format!("\n| `{key}` | ")), "docs/spec.md has no row for `{key}`");
    }
    for key in keys(&definitions["for_each"]["oneOf"][1]["properties"]) {
        assert!(text.contains(&format!("{{{key}: ")), "docs/spec.md does not show `for_each: {{{key}: …}}`");
    }
    for key in keys(&definitions["label_rule"]["oneOf"][2]["properties"]) {
        assert!(text.contains(&format!("| `{{{key}: ")), "docs/spec.md does not show the rule `{{{key}: …}}`");
    }
    for key in keys(&definitions["resources"]["properties"]) {
        assert!(text.contains(&format!("`{key}` is in ")), "docs/spec.md does not tell the unit of `{key}`");
    }
}

#[test]
fn the_documentation_has_every_limit() {
    let kib = |bytes: usize| format!("{} KiB", bytes >> 10);
    let mib = |bytes: usize| format!("{} MiB", bytes >> 20);
    let hours = |time: Duration| time.as_secs() / 3600;
    let limits: [(&str, String); 40] = [
        ("SPEC_BYTES_MAX", mib(limits::SPEC_BYTES_MAX)),
        ("SPEC_VALUES_MAX", limits::SPEC_VALUES_MAX.to_string()),
        ("SPEC_DEPTH_MAX", limits::SPEC_DEPTH_MAX.to_string()),
        ("ALIAS_VALUES_MAX", limits::ALIAS_VALUES_MAX.to_string()),
        ("ALIAS_BYTES_MAX", mib(limits::ALIAS_BYTES_MAX)),
        ("PROBLEMS_MAX", limits::PROBLEMS_MAX.to_string()),
        ("STAGES_MAX", limits::STAGES_MAX.to_string()),
        ("TASKS_PER_STAGE_MAX", limits::TASKS_PER_STAGE_MAX.to_string()),
        ("TASKS_PER_JOB_MAX", limits::TASKS_PER_JOB_MAX.to_string()),
        ("EDGES_MAX", limits::EDGES_MAX.to_string()),
        ("NESTING_DEPTH_MAX", limits::NESTING_DEPTH_MAX.to_string()),
        ("EXPANDED_BYTES_MAX", mib(limits::EXPANDED_BYTES_MAX)),
        ("AFTER_JOBS_MAX", limits::AFTER_JOBS_MAX.to_string()),
        ("BORDER_NAMES_MAX", limits::BORDER_NAMES_MAX.to_string()),
        ("NAME_CHARS_MAX", limits::NAME_CHARS_MAX.to_string()),
        ("NAMESPACE_CHARS_MAX", limits::NAMESPACE_CHARS_MAX.to_string()),
        ("GROUP_DEPTH_MAX", GROUP_DEPTH_MAX.to_string()),
        ("GROUP_NAME_CHARS_MAX", GROUP_NAME_CHARS_MAX.to_string()),
        ("LABELS_MAX", limits::LABELS_MAX.to_string()),
        ("LABEL_KEY_CHARS_MAX", limits::LABEL_KEY_CHARS_MAX.to_string()),
        ("LABEL_VALUE_BYTES_MAX", limits::LABEL_VALUE_BYTES_MAX.to_string()),
        ("PARAMS_MAX", limits::PARAMS_MAX.to_string()),
        ("PARAM_NAME_CHARS_MAX", limits::PARAM_NAME_CHARS_MAX.to_string()),
        ("ARGUMENTS_BYTES_MAX", kib(limits::ARGUMENTS_BYTES_MAX)),
        ("SCRIPT_BYTES_MAX", kib(limits::SCRIPT_BYTES_MAX)),
        ("ARGV_BYTES_MAX", kib(limits::ARGV_BYTES_MAX)),
        ("ENV_BYTES_MAX", kib(limits::ENV_BYTES_MAX)),
        ("ITEM_BYTES_MAX", kib(limits::ITEM_BYTES_MAX)),
        ("ITEMS_BYTES_MAX", mib(limits::ITEMS_BYTES_MAX)),
        ("CPU_MILLI_MAX", format!("{} cores", limits::CPU_MILLI_MAX / 1000)),
        ("MEMORY_BYTES_MAX", format!("{} TiB", limits::MEMORY_BYTES_MAX >> 40)),
        ("NAMED_RESOURCES_MAX", limits::NAMED_RESOURCES_MAX.to_string()),
        ("NAMED_RESOURCE_COUNT_MAX", limits::NAMED_RESOURCE_COUNT_MAX.to_string()),
        ("PLACEMENT_BYTES_MAX", kib(limits::PLACEMENT_BYTES_MAX)),
        ("EXECUTOR_LABEL_BYTES_MAX", limits::EXECUTOR_LABEL_BYTES_MAX.to_string()),
        ("PREFERENCE_WEIGHT_MAX", limits::PREFERENCE_WEIGHT_MAX.to_string()),
        ("RESOURCE_NAME_CHARS_MAX", limits::RESOURCE_NAME_CHARS_MAX.to_string()),
        ("TIMEOUT_MAX", format!("{}d", hours(limits::TIMEOUT_MAX) / 24)),
        ("GRACE_MAX", format!("{}h", hours(limits::GRACE_MAX))),
        ("BACKOFF_MAX", format!("{}d", hours(limits::BACKOFF_MAX) / 24)),
    ];
    let text = documentation();
    for (name, value) in &limits {
        assert!(
            text.contains(&format!("\n| `{name}` | {value} | ")),
            "docs/spec.md does not say that {name} is {value}"
        );
    }
    assert_eq!(text.matches("_MAX` | ").count(), limits.len(), "docs/spec.md has a limit that this test does not know");
}
