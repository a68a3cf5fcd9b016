//! Parameters: what may be given, what becomes of it, and how far a spec is checked before anything is given.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io;

use muster_graph::spec::{Argument, Arguments, Files, Format, JobSpec, NoFiles, Problems, Tasks, Template};
use proptest::prelude::*;
use serde_json::{Value, json};

const SPEC: &str = r"
name: nightly
params:
  shards: {type: int, min: 1, max: 64}
  day: text
  rate: {type: number, default: 1}
  wait: {type: bool, default: false}
  regions: {type: list, default: [eu], choices: [eu, us, asia]}
  sizes: {type: list, of: int, default: []}
stages:
  fetch:
    run: [fetch, {$param: day}]
    for_each: {$param: regions}
    env: {RATE: {$param: rate}, WAIT: {$param: wait}}
  count:
    run: count
    tasks: {$param: shards}
    inputs: {fetch: all}
  sizes:
    run: ls
    for_each: {$param: sizes}
";

fn words(given: &[(&str, &str)]) -> Arguments {
    given.iter().map(|(name, value)| ((*name).to_owned(), Argument::Word((*value).to_owned()))).collect()
}

fn with(text: &str, given: &Arguments) -> Result<JobSpec, Problems> {
    Template::read(text, Format::Yaml)?.draft(given)?.resolve(&NoFiles)
}

fn items(spec: &JobSpec, stage: usize) -> Vec<&str> {
    match &spec.stages[stage].tasks {
        Tasks::Items(items) => items.iter().map(String::as_str).collect(),
        Tasks::Count(_) => panic!("no items"),
    }
}

#[test]
fn words_of_a_command_line_are_read_as_their_parameters_types_say() {
    let given = words(&[
        ("shards", "+12"),
        ("day", "1.10"),
        ("rate", "1e-3"),
        ("wait", "true"),
        ("regions", "eu, asia"),
        ("sizes", "[3, 4]"),
    ]);
    let spec = with(SPEC, &given).unwrap();
    assert_eq!(spec.stages[1].tasks, Tasks::Count(12));
    assert_eq!(items(&spec, 0), ["eu", "asia"]);
    assert_eq!(items(&spec, 2), ["3", "4"]);
    let muster_graph::spec::Work::Process(muster_graph::spec::Run::Argv(argv)) = &spec.stages[0].work else {
        panic!("an argv")
    };
    assert_eq!(argv, &["fetch", "1.10"], "text stays as it was written");
    assert_eq!(spec.stages[0].env["RATE"], "1e-3");
    assert_eq!(spec.stages[0].env["WAIT"], "true");
}

#[test]
fn values_of_another_spec_keep_their_types() {
    let number = |text: &str| Argument::Number(text.to_owned());
    let mut given: Arguments = words(&[("day", "monday")]);
    given.insert("shards".to_owned(), number("3"));
    given.insert("wait".to_owned(), Argument::Bool(true));
    given.insert("sizes".to_owned(), Argument::List(vec![number("1"), number("2")]));
    let spec = with(SPEC, &given).unwrap();
    assert_eq!((spec.stages[1].tasks.count(), items(&spec, 2)), (3, vec!["1", "2"]));
    given.insert("shards".to_owned(), Argument::Text("3".to_owned()));
    let problems = with(SPEC, &given).unwrap_err().to_string();
    assert!(problems.contains("expected a whole number, found text"), "{problems}");
}

#[test]
fn everything_that_is_wrong_with_arguments_is_said_at_once() {
    let given = words(&[
        ("shard", "1"),
        ("shards", "100"),
        ("rate", "fast"),
        ("wait", "yes"),
        ("regions", "eu,asie"),
        ("sizes", "1,x"),
    ]);
    insta::assert_snapshot!(with(SPEC, &given).unwrap_err());
}

#[test]
fn a_spec_whose_parameters_have_no_values_is_checked_as_far_as_it_is_known() {
    let sketch = |text: &str| Template::read(text, Format::Yaml)?.sketch()?.resolve(&NoFiles);
    let spec = sketch(SPEC).unwrap();
    assert_eq!(spec.stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>(), ["fetch", "count", "sizes"]);
    // Of the sizes only one is known; whether they fit each other is for the arguments to decide.
    let each = "
name: x
params: {n: int, t: text, script: text}
timeout: {$param: t}
stages:
  a: {run: ls, tasks: 4}
  b: {run: {$param: script}, tasks: {$param: n}, inputs: {a: each}, resources: {memory: {$param: t}, gpu: {$param: n}}}
";
    sketch(each).unwrap();
    let wrong = each.replace("tasks: 4", "tasks: -4, inputs: [c]");
    let problems = sketch(&wrong).unwrap_err();
    assert_eq!(problems.0.len(), 2, "{problems}");
}

#[test]
fn more_open_values_than_problems_are_reported_hide_no_problem() {
    let env: String = (0..300).map(|n| format!("      V{n}: {{$param: open}}\n")).collect();
    let text = format!("name: x\nparams: {{open: text}}\nstages:\n  s:\n    run: ls\n    tasks: many\n    env:\n{env}");
    let problems = Template::read(&text, Format::Yaml).unwrap().sketch().map(|_| ()).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
}

#[test]
fn too_much_of_arguments_is_refused_by_its_limit() {
    let given: Arguments = [("day".to_owned(), Argument::Word("x".repeat(256 << 10)))].into();
    let problems = with(SPEC, &given).unwrap_err().to_string();
    assert!(problems.contains("the arguments take more than 256 KiB"), "{problems}");
}

struct TwoLines;

impl Files for TwoLines {
    fn lines(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(vec!["one\n".to_owned(), "two\n".to_owned()])
    }
    fn glob(&self, _: &str) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
}

#[test]
fn as_json_a_spec_stands_on_its_own_and_means_the_same() {
    let text = format!(
        "{SPEC}  lines:\n    run: ls\n    for_each: {{lines: items.txt}}\n    env: {{VERSION: 1.10, OCTAL: 0o17}}\n"
    );
    let given = words(&[("shards", "2"), ("day", "monday")]);
    let template = Template::read(&text, Format::Yaml).unwrap();
    let json = template.canonical(&TwoLines).unwrap();
    let again = Template::read(&json, Format::Json).unwrap();
    assert_eq!(
        template.draft(&given).unwrap().resolve(&TwoLines).unwrap(),
        again.draft(&given).unwrap().resolve(&NoFiles).unwrap()
    );
    assert_eq!(again.canonical(&NoFiles).unwrap(), json);

    let problems = template_with("lines: {$param: day}").canonical(&TwoLines).unwrap_err().to_string();
    assert!(problems.contains("stages.a.for_each.lines: which file is read cannot be a parameter"), "{problems}");
    let problems = template_with("glob: none*").canonical(&TwoLines).unwrap_err().to_string();
    assert!(problems.contains("`none*` matches nothing"), "{problems}");
}

fn template_with(for_each: &str) -> Template {
    let text = format!("name: x\nparams: {{day: text}}\nstages:\n  a: {{run: ls, for_each: {{{for_each}}}}}\n");
    Template::read(&text, Format::Yaml).unwrap()
}

/// What looks a little like a spec: its keys and marks, wherever they may stand.
fn nearly_a_spec() -> impl Strategy<Value = Value> {
    let keys = "name|run|stages|params|tasks|job|with|for_each|lines|env|inputs|after|type|default|choices|of|min|max|a|\\$param";
    let scalar = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-2i64..9).prop_map(Value::from),
        "(a|b|int|list|text|all|ls|\\$param|never|1)".prop_map(Value::from),
        Just(json!({"$param": "a"})),
    ];
    scalar.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(keys, inner, 0..6)
                .prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn nothing_panics_and_what_is_good_means_the_same_as_json(
        top in proptest::collection::btree_map("run|stages|tasks|env|for_each|timeout", nearly_a_spec(), 0..3),
        param in nearly_a_spec(),
        given in "[a1,\\[\\]]{0,4}",
    ) {
        let mut spec = Value::from(serde_json::Map::from_iter(top));
        spec["name"] = json!("x");
        if spec.get("stages").is_none() && spec.get("run").is_none() {
            spec["run"] = json!(["ls", {"$param": "b"}]);
        }
        spec["params"] = json!({"a": param, "b": "int"});
        let template = Template::read(&spec.to_string(), Format::Json).unwrap();
        let sketch = template.sketch().map(|draft| draft.resolve(&NoFiles));
        let arguments = words(&[("a", &given), ("b", "1")]);
        let drafted = template.draft(&arguments).and_then(|draft| draft.resolve(&TwoLines));
        if let Ok(good) = &drafted {
            prop_assert!(sketch.is_ok(), "what is good with some values has no problem without any: {sketch:?}");
            if let Ok(json) = template.canonical(&TwoLines) {
                let again = Template::read(&json, Format::Json).unwrap().draft(&arguments).unwrap();
                prop_assert_eq!(good, &again.resolve(&NoFiles).unwrap());
            }
        }
    }
}
