//! The house's own rules, as far as a program can check them. The lists of exceptions only shrink.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where to look for the seam.
const LINES_MAX: usize = 400;

/// Longer files, each with its length when it was admitted and the reason. A file may shrink, never grow.
const LONGER: &[(&str, usize, &str)] = &[
    ("executor/src/supervisor/event_loop.rs", 429, "one loop and its state"),
    ("graph/src/spec/from_yaml.rs", 417, "the YAML reader and its tests"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace").to_owned()
}

/// Every Rust file of ours with its text, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("our own folders can be read") {
            let path = entry.expect("our own folders can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("our own files are text");
                let place = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.insert(place, text);
            }
        }
    }
    assert!(found.len() > 50, "only {} files were found below {}", found.len(), root.display());
    found
}

fn is_test(place: &str) -> bool {
    place.contains("/tests/") || place.ends_with("tests.rs") || place.starts_with("integration/")
}

#[test]
fn files_are_of_a_size_that_one_can_keep_in_mind() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (place, text) in &sources {
        let lines = text.lines().count();
        let limit = LONGER.iter().find(|(known, ..)| known == place).map_or(LINES_MAX, |(_, lines, _)| *lines);
        if lines > limit {
            wrong.push(format!("{place}: {lines} lines, more than {limit}: find the seam"));
        }
    }
    for (place, admitted, _) in LONGER {
        match sources.get(*place).map(|text| text.lines().count()) {
            None => wrong.push(format!("{place} is in the list of longer files and does not exist")),
            Some(lines) if lines <= LINES_MAX => wrong.push(format!("{place} is short now: take it off the list")),
            Some(lines) if lines + 20 < *admitted => {
                wrong.push(format!("{place} has {lines} lines now: tighten the list from {admitted}"));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_says_why_it_exists() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| {
            let first = text.lines().find(|line| !line.starts_with("#![") && !line.trim().is_empty());
            !first.is_some_and(|line| line.starts_with("//!"))
        })
        .map(|(place, _)| place)
        .collect();
    assert!(silent.is_empty(), "no //! at the head of: {}", silent.join(", "));
}

#[test]
fn nothing_is_left_for_later_and_no_queue_is_without_bound() {
    let mut wrong = Vec::new();
    // Put together, so that this file does not find itself.
    let banned = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["unbounded", "_channel"].concat()];
    for (place, text) in sources().iter().filter(|(place, _)| !is_test(place)) {
        for (number, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(word.as_str())) {
                wrong.push(format!("{place}:{}: {word}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Which of our crates each may depend on. Dependencies point one way: only schedulers know the store, and nothing
/// knows the binary.
const MAY_USE: &[(&str, &[&str])] = &[
    ("graph", &[]),
    ("proto", &["graph"]),
    ("state", &["graph", "proto"]),
    ("scheduler", &["graph", "proto", "state"]),
    ("executor", &["graph", "proto"]),
    ("client", &["graph", "proto"]),
    ("cli", &["graph", "proto", "state", "scheduler", "executor", "client"]),
    ("integration", &["graph", "proto", "state", "scheduler", "executor", "client"]),
];

#[test]
fn dependencies_point_one_way() {
    let mut wrong = Vec::new();
    for (name, allowed) in MAY_USE {
        let manifest = std::fs::read_to_string(root().join(name).join("Cargo.toml")).expect("each crate has one");
        let used: BTreeSet<&str> = manifest
            .lines()
            .filter_map(|line| line.strip_prefix("muster-"))
            .filter_map(|line| line.split([' ', '.', '=']).next())
            .collect();
        for used in used.iter().filter(|used| *used != name && !allowed.contains(used)) {
            wrong.push(format!("{name} uses {used}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_rules_are_pure() {
    let banned = ["std::time::Instant", "SystemTime", "std::fs", "std::net", "tokio", "rand::", "Mutex", "RwLock"];
    let mut wrong = Vec::new();
    for (place, text) in sources().iter().filter(|(place, _)| place.starts_with("graph/src/")) {
        // Unit tests at the end of a file may do what they want.
        let rules = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in rules.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for word in banned.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("{place}:{}: {word}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "the graph does no I/O and knows no clock:\n{}", wrong.join("\n"));
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("it is there");
    let section = manifest
        .split("[workspace.dependencies]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .expect("the workspace lists its dependencies");
    let silent: Vec<&str> = section
        .lines()
        .filter(|line| line.contains(" = ") && !line.starts_with('#') && !line.starts_with("muster-"))
        .filter(|line| !line.contains(" # "))
        .collect();
    assert!(silent.is_empty(), "no reason beside: {}", silent.join("\n"));
}

#[test]
fn log_messages_that_the_documentation_lists_are_logged() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).expect("it is there");
    let section = page.split("\n## In the log\n").nth(1).expect("it lists them");
    let sources = sources();
    let logged = |message: &str| {
        let logged = format!("\"{message}\"");
        sources.iter().any(|(place, text)| !is_test(place) && text.contains(&logged))
    };
    let messages: Vec<&str> = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(messages.len() > 10, "only {} messages were found", messages.len());
    let gone: Vec<&&str> = messages.iter().filter(|message| !logged(message)).collect();
    assert!(gone.is_empty(), "docs/metrics.md lists messages that nobody logs: {gone:?}");
}

#[test]
fn tests_that_the_readme_names_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("it is there");
    let promises = readme.split("## What is promised").nth(1).and_then(|rest| rest.split("\n## ").next());
    let names: Vec<&str> = promises
        .expect("the README says what is promised")
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| name.len() > 20 && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect();
    assert!(names.len() > 10, "only {} names of tests were found", names.len());
    let sources = sources();
    let gone: Vec<&str> =
        names.into_iter().filter(|name| !sources.values().any(|text| text.contains(&format!("fn {name}(")))).collect();
    assert!(gone.is_empty(), "the README names tests that are not there: {}", gone.join(", "));
}
