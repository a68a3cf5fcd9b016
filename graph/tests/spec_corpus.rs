//! The corpora: every bad spec has its expected messages, every good one its expected model, as snapshots.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use muster_graph::spec::{Files, Format, JobSpec, Problem, Problems, read};

/// The files around the specs of the corpora.
struct CorpusFiles;

impl Files for CorpusFiles {
    fn lines(&self, path: &str) -> io::Result<Vec<String>> {
        match path {
            "three.txt" => Ok(["one", "", "two words\r", "three"].map(str::to_owned).to_vec()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        }
    }

    fn glob(&self, pattern: &str) -> io::Result<Vec<String>> {
        Ok(if pattern == "*.txt" { vec!["b.txt".to_owned(), "a.txt".to_owned()] } else { Vec::new() })
    }
}

fn read_all(text: &str, format: Format) -> Result<JobSpec, Problems> {
    read(text, format)?.resolve(&CorpusFiles)
}

fn corpus(name: &str) -> Vec<(PathBuf, String, Format)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let mut specs: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            let format = Format::of_path(&path).unwrap_or_else(|| panic!("not a spec: {}", path.display()));
            let text = fs::read_to_string(&path).unwrap();
            (path, text, format)
        })
        .collect();
    specs.sort_by(|a, b| a.0.cmp(&b.0));
    specs
}

/// As a reader sees it: the line, what is marked in it, and what is said about it.
fn render(text: &str, problem: &Problem) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    let mut out = String::new();
    match problem.place {
        Some(place) => {
            let line = text.split('\n').nth(place.line as usize - 1).unwrap_or_default().trim_end_matches('\r');
            let column = place.column as usize - 1;
            let marked = text[place.offset..place.offset + place.len].chars().count();
            writeln!(out, "{}:{} {}", place.line, place.column, problem.field).unwrap();
            if column + marked.min(20) <= SHOWN_CHARS_MAX {
                let shown: String =
                    line.chars().take(SHOWN_CHARS_MAX).map(|c| if c == '\t' { ' ' } else { c }).collect();
                let marks = "^".repeat(marked.clamp(1, SHOWN_CHARS_MAX - column.min(SHOWN_CHARS_MAX - 1)));
                writeln!(out, "    {shown}\n    {}{marks}", " ".repeat(column)).unwrap();
            }
        }
        None => writeln!(out, "(no place) {}", problem.field).unwrap(),
    }
    writeln!(out, "  {}\n  help: {}", problem.message, problem.help).unwrap();
    out
}

fn snapshot_name(kind: &str, path: &Path) -> String {
    format!("{kind}__{}", path.file_name().unwrap().to_str().unwrap().replace('.', "_"))
}

#[test]
fn bad_specs_are_answered_with_field_place_and_remedy() {
    let specs = corpus("bad_specs");
    assert!(specs.len() >= 70, "the corpus shrank to {}", specs.len());
    for (path, text, format) in specs {
        let name = path.file_name().unwrap().to_str().unwrap();
        let problems = match read_all(&text, format) {
            Ok(_) => panic!("{name} has no problem"),
            Err(problems) => problems,
        };
        for problem in &problems {
            let one_line = |text: &str| !text.is_empty() && !text.contains('\n') && text.len() < 400;
            assert!(one_line(&problem.message) && one_line(&problem.help), "{name}: {problem:?}");
            let is_about_all = problem.message.starts_with("there are ");
            assert!(problem.place.is_some() || is_about_all, "{name}: no place: {problem:?}");
        }
        let rendered: String = problems.0.iter().map(|problem| render(&text, problem)).collect();
        insta::with_settings!({ description => name, omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(snapshot_name("bad", &path), rendered);
        });
    }
}

#[test]
fn every_snapshot_belongs_to_a_spec() {
    let specs = corpus("bad_specs").into_iter().map(|(path, ..)| snapshot_name("bad", &path));
    let good = corpus("good_specs")
        .into_iter()
        .map(|(path, ..)| format!("good__{}", path.file_stem().unwrap().to_str().unwrap()));
    let known: std::collections::BTreeSet<String> = specs.chain(good).collect();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        if name.starts_with("bad__") || name.starts_with("good__") {
            assert!(known.contains(name), "{name} has no spec any more: delete it");
        }
    }
}

#[test]
fn good_specs_give_their_model_and_the_same_one_in_each_format() {
    let mut previous: Option<(String, JobSpec)> = None;
    let mut compared = 0;
    for (path, text, format) in corpus("good_specs") {
        let spec = read_all(&text, format).unwrap_or_else(|problems| panic!("{}: {problems}", path.display()));
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        match &previous {
            Some((other, model)) if *other == stem => {
                assert_eq!(*model, spec, "{} differs from the other formats", path.display());
                compared += 1;
            }
            _ => {
                insta::with_settings!({ description => stem.clone(), omit_expression => true, prepend_module_to_snapshot => false }, {
                    insta::assert_debug_snapshot!(format!("good__{stem}"), spec);
                });
                previous = Some((stem, spec));
            }
        }
    }
    assert!(compared >= 5, "only {compared} specs were compared between formats");
}
