//! Bombs are refused before anything is allocated, and expansion is linear.

use std::cell::Cell;
use std::sync::Arc;

use muster_graph::spec::{Arguments, Found, JobSpec, Library, Outline, Problems, Unknown, expand};

use super::job::spec;

/// Definitions `1`, `2`, …, of which each names the next one several times; they are never asked for.
struct Chain {
    length: u32,
    times: u32,
    looked_up: Cell<u32>,
}

impl Library for Chain {
    fn find(&self, name: &str, _: Option<u32>) -> Result<Found, Unknown> {
        self.looked_up.set(self.looked_up.get() + 1);
        let number: u32 = name.parse().unwrap();
        let next = if number < self.length { format!("job: '{}'", number + 1) } else { "run: x".to_owned() };
        let stages: Vec<String> = (0..self.times).map(|stage| format!("s{stage}: {{{next}}}")).collect();
        let outline = Outline::of(&spec(&format!("stages: {{{}}}", stages.join(", "))));
        Ok(Found { revision: 1, outline: Arc::new(outline) })
    }

    fn instantiate(&self, name: &str, _: u32, _: &Arguments) -> Result<JobSpec, Problems> {
        panic!("{name} was asked for: it is too large")
    }
}

fn refused(length: u32, times: u32) -> (String, u32) {
    let chain = Chain { length, times, looked_up: Cell::new(0) };
    let said = expand(spec("stages: {a: {job: '1'}}"), &chain).expect_err("it is too large").to_string();
    (said, chain.looked_up.get())
}

#[test]
fn twenty_levels_of_two_are_refused_by_name() {
    let (said, looked_up) = refused(20, 2);
    assert!(said.contains("20 deep, and at most 16") && said.contains("NESTING_DEPTH_MAX"), "{said}");
    assert!(looked_up <= 1 + 2 * 20);
    // As deep as is allowed: one and 3 + 3² + … + 3¹⁴ references of two gates each, and 3¹⁵ stages.
    let (said, _) = refused(15, 3);
    assert!(said.contains("has 28697813 stages, and at most 100000") && said.contains("STAGES_MAX"), "{said}");
}

#[test]
fn a_chain_of_forty_diamonds_is_looked_at_once_for_each() {
    let (said, looked_up) = refused(40, 2);
    assert!(said.contains("NESTING_DEPTH_MAX"), "{said}");
    assert!(looked_up <= 1 + 2 * 40, "{looked_up}");
    let (_, looked_up) = refused(5_000, 2);
    assert!(looked_up <= 1 + 2 * 5_000, "nor does a long chain overflow the stack: {looked_up}");
}

#[test]
fn text_tasks_and_edges_of_the_whole_are_limited() {
    let inline = |inner: &str, count: u32| {
        let stages: Vec<String> = (0..count).map(|stage| format!("s{stage}: {{job: big}}")).collect();
        (format!("stages: {{{}}}", stages.join(", ")), super::Defined::of(&[("big", inner)]))
    };
    let script = format!("stages: {{a: {{run: '{}'}}}}", "x".repeat(60_000));
    let (root, library) = inline(&script, 1_000);
    assert!(super::refused(&root, &library).contains("EXPANDED_BYTES_MAX"));
    let (root, library) = inline("stages: {a: {run: x, tasks: 100000}}", 20);
    assert!(super::refused(&root, &library).contains("TASKS_PER_JOB_MAX"));
    let items = format!("stages: {{a: {{run: x, for_each: ['{}']}}}}", "x".repeat(16_000));
    let (root, library) = inline(&items, 5_000);
    assert!(super::refused(&root, &library).contains("ITEMS_BYTES_MAX"));
}

#[test]
fn a_thousand_references_become_a_hundred_thousand_stages() {
    let inner: Vec<String> = (0..98)
        .map(|stage| {
            if stage == 0 {
                "s0: {run: [work, x]}".to_owned()
            } else {
                format!("s{stage}: {{run: [work, x], inputs: {{s{}: all}}}}", stage - 1)
            }
        })
        .collect();
    let outer: Vec<String> = (0..1_000).map(|stage| format!("r{stage}: {{job: inner}}")).collect();
    let library = super::Defined::of(&[("inner", &format!("stages: {{{}}}", inner.join(", ")))]);
    let root = spec(&format!("stages: {{{}}}", outer.join(", ")));
    let expanded = expand(root, &library).unwrap();
    assert_eq!(expanded.spec.stages.len(), 100_000);
}
