//! Texts made to hurt: each is answered, within a time that only linear work keeps.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use muster_graph::spec::{Format, NoFiles, read};

/// How often each text repeats its evil part.
const REPEATS: usize = 50_000;
/// Far above what linear work takes on a slow machine, far below what quadratic work would.
const DEADLINE: Duration = Duration::from_secs(30);

fn check(format: Format, text: &str, expected: &str) {
    let start = Instant::now();
    let problems = read(text, format).and_then(|draft| draft.resolve(&NoFiles)).unwrap_err();
    let took = start.elapsed();
    let shown: String = text.chars().take(40).collect();
    let message = &problems.0[0].message;
    assert!(message.contains(expected), "{shown:?}: {message}");
    assert!(took < DEADLINE, "{shown:?} took {took:?}");
}

/// The same part many times, numbered.
fn numbered(part: impl Fn(usize) -> String) -> String {
    (0..REPEATS).map(part).collect()
}

#[test]
fn hostile_yaml_is_refused_in_time() {
    let hostile = |text: String, expected| check(Format::Yaml, &text, expected);
    hostile(numbered(|i| format!("k{i}: 1\n")), "unknown key `k0`");
    hostile("k: 1\n".repeat(REPEATS), "unknown key `k`");
    hostile(numbered(|i| format!("- &a{i} x\n")), "expected a map");
    hostile(format!("- &a x\n{}", "- *a\n".repeat(REPEATS)), "expected a map");
    hostile(format!("- &a x\n{}", "- *a\n".repeat(2 * REPEATS + 1)), "aliases stand for more");
    hostile(format!("name: x\nrun: |\n{}", "  line\n".repeat(REPEATS)), "the script has more");
    hostile(format!("name: x\nrun: >\n{}", "  line\n\n".repeat(REPEATS)), "the script has more");
    hostile("# c\n".repeat(REPEATS), "the spec is empty");
    hostile("\n   ".repeat(REPEATS), "the spec is empty");
    hostile("[a: ".repeat(REPEATS), "nested more than");
    hostile("- ".repeat(REPEATS), "nested more than");
    hostile("? a\n".repeat(REPEATS), "unknown key `a`");
    hostile("---\n".repeat(REPEATS), "a second document");
    hostile(format!("[{}]", "a: b, ".repeat(REPEATS)), "expected a map");
    hostile(
        format!("name: x\nstages:\n{}", numbered(|i| format!("  s{i}: {{run: ls, after: [zz{i}]}}\n"))),
        "there is no stage `zz0`",
    );
}

#[test]
fn hostile_toml_is_refused_in_time() {
    let hostile = |text: String, expected| check(Format::Toml, &text, expected);
    hostile(numbered(|i| format!("k{i} = 1\n")), "unknown key `k0`");
    hostile("k = 1\n".repeat(REPEATS), "`k` is given twice");
    hostile("[a]\n".repeat(REPEATS), "`a` is given twice");
    hostile("[[a]]\n[[a.b]]\n".repeat(REPEATS), "the job has no name");
    hostile(numbered(|i| format!("a.b.c.d.e.f{i} = 1\n")), "unknown key `a`");
    hostile(format!("{} = 1", vec!["a"; REPEATS].join(".")), "nested too deep");
    hostile("= =\n".repeat(REPEATS), "this is not TOML");
    hostile("x\n".repeat(20 * REPEATS), "this is not TOML");
    hostile("a = [".repeat(REPEATS), "this is not TOML");
    hostile(format!("a = {}", "[".repeat(REPEATS)), "nested too deep");
    hostile(format!("a = {}", "{a=".repeat(REPEATS)), "nested too deep");
}

#[test]
fn hostile_json_is_refused_in_time() {
    let hostile = |text: String, expected| check(Format::Json, &text, expected);
    hostile(format!("{{{}\"z\":1}}", numbered(|i| format!("\"k{i}\":1,"))), "unknown key `k0`");
    hostile(
        format!("{{\"name\":\"x\",\"run\":\"ls\",\"for_each\":[{}]}}", vec!["[]"; REPEATS].join(",")),
        "expected an item, found a list",
    );
    hostile(format!("\"{}\"", "\\u0041".repeat(REPEATS)), "expected a map");
    hostile("{\"a\":".repeat(REPEATS), "nested more than");
}
