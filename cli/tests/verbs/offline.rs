//! Verbs that need no cluster.

use serde_json::Value;

use crate::harness::{World, bare, said};

const WRONG: &str = "\
name: sample
stages:
  map:
    rum: echo
    tasks: many
  reduce:
    run: echo
    inputs: {mapp: shuffle}
";

#[test]
fn lint_shows_every_problem_with_its_place_and_a_remedy() {
    let world = World::new();
    world.file("wrong.yaml", WRONG);
    let mut command = world.muster(&["lint", "wrong.yaml"]);
    command.current_dir(world.home.path());
    let answer = said(command);
    assert_eq!(answer.code, Some(1));
    insta::assert_snapshot!("lint-table", answer.out);
}

#[test]
fn lint_says_the_same_in_json_and_by_name() {
    let world = World::new();
    let wrong = world.file("wrong.yaml", WRONG);
    let answer = world.say(&["lint", &wrong, "-o", "json"]);
    assert_eq!(answer.code, Some(1));
    let problems: Value = serde_json::from_str(&answer.out).unwrap();
    let last = problems.as_array().unwrap().last().unwrap();
    assert_eq!((&last["line"], &last["field"]), (&Value::from(8), &Value::from("stages.reduce.inputs.mapp")));
    let answer = world.say(&["lint", &wrong, "-o", "name"]);
    assert!(answer.out.lines().all(|line| line.starts_with(&format!("{wrong}:"))), "{}", answer.out);
}

#[test]
fn lint_of_good_files_is_silent_on_standard_output() {
    let world = World::new();
    let good = world.file("good.toml", "name = 'n'\nrun = ['true']\n");
    let items = world.file("lines.yaml", "name: n\nrun: echo\nfor_each: {lines: items.txt}\n");
    world.file("items.txt", "a\nb\n");
    let answer = world.say(&["lint", &good, &items]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(0), ""));
    assert!(answer.err.contains("1 stage, 2 tasks"), "{}", answer.err);
}

#[test]
fn a_parameter_without_a_value_is_no_problem_to_lint_but_one_to_submit() {
    let world = World::new();
    let yaml = "name: n\nparams: {script: text, tasks: {default: 3}}\nrun: {$param: script}\ntasks: {$param: tasks}\n";
    let spec = world.file("params.yaml", yaml);
    let answer = world.say(&["lint", &spec]);
    assert_eq!(answer.code, Some(0), "{}", answer.out);
    let answer = world.say(&["submit", &spec, "-p", "scirpt=ls", "-p", "tasks=many"]);
    assert_eq!(answer.code, Some(2));
    for said in ["did you mean `script`?", "the parameter has no value", "`many` is not a whole number"] {
        assert!(answer.err.contains(said), "{said}: {}", answer.err);
    }
    let answer = world.say(&["submit", &spec, "-p", "tasks=1", "-p", "tasks=2"]);
    assert!(answer.err.contains("the parameter tasks is given twice"), "{}", answer.err);
}

#[test]
fn every_example_is_a_good_spec() {
    let home = tempfile::tempdir().unwrap();
    let mut examples: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    examples.sort();
    assert!(examples.len() >= 5);
    let mut arguments = vec!["lint"];
    arguments.extend(examples.iter().map(String::as_str));
    let answer = said(bare(home.path(), &arguments));
    assert_eq!(answer.code, Some(0), "{}{}", answer.out, answer.err);
}

#[test]
fn the_schema_is_a_json_schema() {
    let home = tempfile::tempdir().unwrap();
    let answer = said(bare(home.path(), &["schema"]));
    let schema: Value = serde_json::from_str(&answer.out).unwrap();
    assert!(schema["$schema"].is_string());
}

#[test]
fn completions_know_every_verb_in_every_shell() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let answer = said(bare(home.path(), &["completions", shell]));
        assert_eq!(answer.code, Some(0));
        for verb in ["submit", "executors", "exit-codes"] {
            assert!(answer.out.contains(verb), "{shell} lacks {verb}");
        }
    }
}

#[test]
fn there_is_a_manual_page_for_every_verb_but_hidden_ones() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("man");
    let answer = said(bare(home.path(), &["man", "--to", folder.to_str().unwrap()]));
    assert_eq!(answer.code, Some(0), "{}", answer.err);
    for page in ["muster.1", "muster-run.1", "muster-logs.1", "muster-executor.1"] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(!folder.join("muster-supervise.1").exists());
}

#[test]
fn the_exit_codes_are_where_the_help_says_they_are() {
    let home = tempfile::tempdir().unwrap();
    let help = said(bare(home.path(), &["help", "exit-codes"]));
    let verb = said(bare(home.path(), &["exit-codes"]));
    assert!(help.out.contains("130  interrupted") && verb.out.contains("130  interrupted"));
}

#[test]
fn wrong_usage_ends_with_its_code() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [&["frobnicate"][..], &["jobs", "--limit", "many"], &["lint"], &["logs", "x", "--attempt", "0"]] {
        assert_eq!(said(bare(home.path(), arguments)).code, Some(2), "{arguments:?}");
    }
    assert_eq!(said(bare(home.path(), &["--version"])).code, Some(0));
    let scheduler = said(bare(home.path(), &["scheduler"]));
    assert_eq!(scheduler.code, Some(2));
    assert!(scheduler.err.contains("--state"), "{}", scheduler.err);
}
