//! What holds for every text: no panic, the same answer each time, places inside the text; and the same model in any
//! format. Set PROPTEST_CASES for more cases than the quick default.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use muster_graph::plan::Plan;
use muster_graph::spec::{Format, JobSpec, NoFiles, NoLibrary, Problems, Work, check, expand, read};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const FORMATS: [Format; 3] = [Format::Yaml, Format::Toml, Format::Json];

fn read_all(text: &str, format: Format) -> Result<JobSpec, Problems> {
    read(text, format)?.resolve(&NoFiles)
}

/// What must hold whatever the text.
fn holds(text: &str, format: Format) -> Result<(), TestCaseError> {
    let first = read_all(text, format);
    prop_assert_eq!(&first, &read_all(text, format), "reading twice differs");
    match first {
        Ok(spec) => {
            prop_assert_eq!(check(&spec), vec![], "what was read must pass the rules");
            let is_alone = spec.takes.is_empty() && !spec.stages.iter().any(|stage| matches!(stage.work, Work::Job(_)));
            match expand(spec, &NoLibrary) {
                Ok(expanded) => {
                    let plan = Plan::compile(&expanded.spec, |_| String::new());
                    prop_assert!(plan.is_ok(), "what passes the rules must compile");
                }
                // What they refer to is not there, or does not fit.
                Err(problems) => prop_assert!(!is_alone, "{:?}", problems),
            }
        }
        Err(problems) => {
            prop_assert!(!problems.0.is_empty());
            for problem in &problems {
                prop_assert!(!problem.message.is_empty() && !problem.help.is_empty(), "{:?}", problem);
                let Some(place) = problem.place else { continue };
                let marked = text.get(place.offset..place.offset + place.len);
                prop_assert!(marked.is_some_and(|marked| !marked.contains('\n')), "{:?}", problem);
                let lines_before = text[..place.offset].matches('\n').count();
                prop_assert_eq!(place.line as usize, lines_before + 1, "{:?}", problem);
            }
        }
    }
    Ok(())
}

/// All specs of both corpora that are not huge.
static CORPUS: LazyLock<Vec<(String, Format)>> = LazyLock::new(|| {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut specs = Vec::new();
    for folder in ["good_specs", "bad_specs"] {
        for entry in fs::read_dir(tests.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            if text.len() < 4_000 {
                specs.push((text, Format::of_path(&path).unwrap()));
            }
        }
    }
    specs.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(specs.len() > 80, "the corpora are gone");
    specs
});

/// Pieces that mean something in at least one format or to the decoder.
const PIECES: &[&str] = &[
    "\n",
    "  ",
    "\t",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "#",
    "&a ",
    "*a",
    "!!str ",
    "|\n",
    ">\n",
    "---\n",
    "...\n",
    "?",
    "<<: ",
    "=",
    "[[",
    "]]",
    "\\",
    "\\u0000",
    "\0",
    "\r\n",
    "\u{feff}",
    "é",
    "𝕏",
    "null",
    "~",
    "true",
    ".inf",
    "-1",
    "1e999",
    "0x1F",
    "99999999999999999999",
    "name",
    "stages",
    "run",
    "inputs",
    "each",
    "shuffle",
    "after",
    "when: always",
    "for_each",
    "matrix",
    "lines",
    "tasks: 1000000",
    "timeout: 1h30m",
    "memory: 3Gi",
    "\"\"\"",
    "'''",
    "2026-01-01",
];

#[derive(Debug, Clone)]
enum Edit {
    Delete(usize, usize),
    Insert(usize, &'static str),
    Repeat(usize, usize),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        (any::<usize>(), 0usize..20).prop_map(|(at, len)| Edit::Delete(at, len)),
        (any::<usize>(), proptest::sample::select(PIECES)).prop_map(|(at, piece)| Edit::Insert(at, piece)),
        (any::<usize>(), 0usize..40).prop_map(|(at, len)| Edit::Repeat(at, len)),
    ];
    proptest::collection::vec(edit, 1..6)
}

fn mutate(text: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for edit in edits {
        let count = chars.len();
        match *edit {
            Edit::Delete(at, len) if count > 0 => {
                let at = at % count;
                chars.drain(at..(at + len).min(count));
            }
            Edit::Insert(at, piece) => {
                let at = at % (count + 1);
                chars.splice(at..at, piece.chars());
            }
            Edit::Repeat(at, len) if count > 0 => {
                let at = at % count;
                let copy = chars[at..(at + len).min(count)].to_vec();
                chars.splice(at..at, copy);
            }
            Edit::Delete(..) | Edit::Repeat(..) => {}
        }
    }
    chars.into_iter().collect()
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z][a-z0-9_.-]{0,6}".prop_map(|word| word),
        1 => proptest::sample::select(&["no", "on", "1.10", "0x10", "null", "", " ", "a: b", "- x", "#", "\"q\"", "two\nlines", "über"][..])
            .prop_map(str::to_owned),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => word().prop_map(Value::from),
        2 => (-5i64..2_000_000).prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
    ]
}

fn texts() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[A-Z][A-Z_]{0,3}", scalar(), 0..3).prop_map(|map| json!(map))
}

/// A field of a stage: mostly sensible, sometimes not.
fn stage_field() -> impl Strategy<Value = (&'static str, Value)> {
    let names = || proptest::sample::select(&["a", "b", "c", "d"][..]);
    let list = proptest::collection::vec(scalar(), 0..4);
    let durations = &["90s", "5m", "1h30m", "soon", "1.5h"][..];
    prop_oneof![
        (0u32..6).prop_map(|count| ("tasks", json!(count))),
        list.prop_map(|items| ("for_each", json!(items))),
        proptest::collection::btree_map("[a-c]", proptest::collection::vec(scalar(), 0..3), 0..3)
            .prop_map(|axes| ("for_each", json!({ "matrix": axes }))),
        proptest::collection::btree_map(
            names(),
            proptest::sample::select(&["all", "each", "shuffle", "some"][..]),
            0..3
        )
        .prop_map(|inputs| ("inputs", json!(inputs))),
        proptest::collection::vec(names(), 0..3).prop_map(|names| ("after", json!(names))),
        texts().prop_map(|env| ("env", env)),
        proptest::sample::select(durations).prop_map(|text| ("timeout", json!(text))),
        (0u32..100).prop_map(|seconds| ("grace", json!(seconds))),
        any::<bool>().prop_map(|truth| ("deterministic", json!(truth))),
        proptest::sample::select(&["on_success", "on_failure", "always", "never"][..])
            .prop_map(|word| ("when", json!(word))),
        (0u32..300).prop_map(|budget| ("retries", json!(budget))),
        (0u32..300, proptest::sample::select(durations))
            .prop_map(|(budget, text)| ("retries", json!({"failed": budget, "backoff": text}))),
        proptest::sample::select(&["500m", "2", "two"][..])
            .prop_map(|cpu| ("resources", json!({"cpu": cpu, "memory": "2GiB", "gpu": 1}))),
        (word(), scalar(), 0u32..3).prop_map(|(label, value, weight)| {
            let liked = json!([{"label": label, "is": {"not": value}, "weight": weight}]);
            ("placement", json!({"require": {label: [value, "a"]}, "prefer": liked, "policy": "pack"}))
        }),
        scalar().prop_map(|value| ("unknown", value)),
        scalar().prop_map(|value| ("stop_after", value)),
    ]
}

fn stage() -> impl Strategy<Value = Value> {
    let run =
        prop_oneof![word().prop_map(Value::from), proptest::collection::vec(scalar(), 0..4).prop_map(Value::from),];
    (run, proptest::collection::vec(stage_field(), 0..4)).prop_map(|(run, fields)| {
        let mut stage = Map::from_iter([("run".to_owned(), run)]);
        stage.extend(fields.into_iter().map(|(key, value)| (key.to_owned(), value)));
        Value::Object(stage)
    })
}

fn job() -> impl Strategy<Value = Value> {
    let stages = prop_oneof![
        proptest::collection::btree_map("[a-d]", stage(), 1..5).prop_map(|stages| json!(stages)),
        proptest::collection::vec(("[a-d]", stage()), 1..5).prop_map(|stages| {
            let named = stages.into_iter().map(|(name, mut stage)| {
                stage["name"] = Value::from(name);
                stage
            });
            Value::Array(named.collect())
        }),
    ];
    let groups = proptest::sample::select(&["", "/", "a/b.c", "/2026", "a//b", "über", "1/2/3/4/5/6"][..]);
    let groups = proptest::option::weighted(0.3, groups);
    (word(), groups, texts(), -3i64..3, stages).prop_map(|(name, group, env, priority, stages)| {
        let mut job = json!({"name": name, "env": env, "priority": priority, "stages": stages});
        if let Some(group) = group {
            job["group"] = Value::from(group);
        }
        job
    })
}

/// The model, or what was said about which field.
fn outcome(text: &str, format: Format) -> Result<JobSpec, BTreeSet<(String, String)>> {
    read_all(text, format)
        .map_err(|problems| problems.into_iter().map(|problem| (problem.field, problem.message)).collect())
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = String::from_utf8_lossy(&bytes);
        for format in FORMATS {
            holds(&text, format)?;
        }
    }

    #[test]
    fn random_pieces_never_panic(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        let text = pieces.concat();
        for format in FORMATS {
            holds(&text, format)?;
        }
    }

    #[test]
    fn mutated_specs_never_panic(which in any::<proptest::sample::Index>(), edits in edits()) {
        let (text, format) = which.get(&CORPUS);
        holds(&mutate(text, &edits), *format)?;
    }

    #[test]
    fn the_same_job_reads_the_same_in_all_formats(job in job()) {
        let json = serde_json::to_string_pretty(&job).unwrap();
        let expected = outcome(&json, Format::Json);
        let toml = toml::to_string(&job).unwrap();
        prop_assert_eq!(&outcome(&toml, Format::Toml), &expected, "{}", toml);
        let yaml = serde_saphyr::to_string(&job).unwrap();
        prop_assert_eq!(&outcome(&yaml, Format::Yaml), &expected, "{}", yaml);
        prop_assert_eq!(&outcome(&json, Format::Yaml), &expected, "JSON is YAML: {}", json);
    }
}

#[test]
fn random_jobs_are_sometimes_good() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let jobs = job();
    let good = (0..300)
        .filter(|_| {
            let job = jobs.new_tree(&mut runner).unwrap().current();
            read_all(&job.to_string(), Format::Json).is_ok()
        })
        .count();
    assert!((10..290).contains(&good), "{good} of 300 are good: the comparison of formats would show little");
}
