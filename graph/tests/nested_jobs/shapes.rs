//! Who waits for whom.

use muster_graph::execution::{JobState, StageState};

use super::{Defined, Job, expanded, refused};

#[test]
fn child_roots_wait_for_all_parents() {
    let mut job =
        Job::of("stages: {a: {run: x}, b: {run: x}, c: {after: [a, b], job: {stages: {r: {run: x}, s: {run: x}}}}}");
    job.run("a", true);
    assert_eq!(job.ready(), ["b"]);
    job.run("b", true);
    assert_eq!(job.ready(), ["c/r", "c/s"]);
}

#[test]
fn successors_wait_for_all_child_leaves() {
    let mut job = Job::of("stages: {c: {job: {stages: {r: {run: x}, s: {run: x}}}}, d: {after: [c], run: x}}");
    job.run("c/r", true);
    assert_eq!((job.ready(), job.state("c")), (vec!["c/s".to_owned()], StageState::Unresolved));
    job.run("c/s", true);
    assert_eq!((job.ready(), job.state("c")), (vec!["d".to_owned()], StageState::Successful));
}

#[test]
fn several_roots_and_leaves() {
    let inner = "stages: {r: {run: x}, s: {run: x}, m: {after: [r, s], run: x}, t: {after: [m], run: x}, u: {after: [m], run: x}}";
    let mut job =
        Job::with("stages: {a: {run: x}, c: {after: [a], job: inner}, z: {after: [c], run: x}}", &[("inner", inner)]);
    job.run_all(&[]);
    assert_eq!(job.ran, ["a", "c/r", "c/s", "c/m", "c/t", "c/u", "z"]);
    assert_eq!(job.job_state(), JobState::Successful);
}

#[test]
fn three_and_more_levels() {
    let mut job = Job::of(
        "stages: {a: {run: x}, b: {after: [a], job: {stages: {c: {job: {stages: {d: {job: {stages: {e: {run: x}}}}}}}}}}, \
         f: {after: [b], run: x}}",
    );
    job.run("a", true);
    assert_eq!(job.ready(), ["b/c/d/e"]);
    job.run("b/c/d/e", true);
    assert_eq!(["b/c/d", "b/c", "b"].map(|name| job.state(name)), [StageState::Successful; 3]);
    job.run("f", true);
    assert_eq!(job.job_state(), JobState::Successful);
}

#[test]
fn an_empty_child_is_a_bridge() {
    let empty = [("empty", "stages: {}")];
    let cases = [
        ("first", "stages: {e: {job: empty}, a: {after: [e], run: x}}", &["a"][..]),
        ("last", "stages: {a: {run: x}, e: {after: [a], job: empty}}", &["a"]),
        ("only", "stages: {e: {job: empty}}", &[]),
        (
            "consecutive",
            "stages: {a: {run: x}, e: {after: [a], job: empty}, f: {after: [e], job: empty}, b: {after: [f], run: x}}",
            &["a", "b"],
        ),
    ];
    for (place, text, ran) in cases {
        let mut job = Job::with(text, &empty);
        job.run_all(&[]);
        assert_eq!(
            (job.ran.as_slice(), job.job_state()),
            (ran.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>().as_slice(), JobState::Successful),
            "{place}"
        );
    }
    let mut job = Job::with(cases[3].1, &empty);
    assert_eq!(job.ready(), ["a"], "a bridge holds what is behind it back");
    job.run("a", false);
    assert_eq!((job.state("f"), job.state("b")), (StageState::Skipped, StageState::Skipped));
}

#[test]
fn a_job_of_empty_children_succeeds_at_once() {
    let job = Job::of("stages: {e: {job: {stages: {}}}, f: {after: [e], job: {stages: {g: {job: {stages: {}}}}}}}");
    assert_eq!(job.job_state(), JobState::Successful);
    assert_eq!(Job::of("stages: {}").job_state(), JobState::Successful, "nor does one without stages wait");
}

#[test]
fn the_same_child_used_twice_has_separate_state() {
    let inner = [("inner", "stages: {a: {run: x}, b: {after: [a], run: x}}")];
    let mut parallel = Job::with("stages: {l: {job: inner}, r: {job: inner}}", &inner);
    parallel.run("l/a", false);
    parallel.run_all(&[]);
    assert_eq!(parallel.ran, ["l/a", "r/a", "r/b"]);
    assert_eq!((parallel.state("l"), parallel.state("r")), (StageState::Failed, StageState::Successful));
    let mut series = Job::with("stages: {l: {job: inner}, r: {after: [l], job: inner}}", &inner);
    series.run_all(&["r/a"]);
    assert_eq!(series.ran, ["l/a", "l/b", "r/a"]);
    assert_eq!((series.state("l"), series.state("r")), (StageState::Successful, StageState::Failed));
}

#[test]
fn a_diamond_of_references_is_not_a_cycle() {
    let library = Defined::of(&[
        ("top", "stages: {l: {job: left}, r: {job: right}}"),
        ("left", "stages: {d: {job: deep}}"),
        ("right", "stages: {d: {job: deep}}"),
        ("deep", "run: x"),
    ]);
    let expanded = expanded("stages: {t: {job: top}}", &library);
    let runs: Vec<&str> =
        expanded.spec.stages.iter().filter(|stage| stage.tasks.count() > 0).map(|stage| stage.name.as_str()).collect();
    assert_eq!(runs, ["t/l/d/main", "t/r/d/main"]);
    let made_of: Vec<(&str, u32)> = expanded.made_of.iter().map(|used| (used.name.as_str(), used.revision)).collect();
    assert_eq!(made_of, [("deep", 1), ("left", 1), ("right", 1), ("top", 1)]);
}

#[test]
fn self_reference_and_circles_are_refused_with_the_path() {
    let library = Defined::of(&[
        ("self", "stages: {s: {job: self}}"),
        ("a", "stages: {s: {job: b}}"),
        ("b", "stages: {s: {job: {stages: {t: {job: c}}}}}"),
        ("c", "stages: {s: {job: a}}"),
    ]);
    let said = refused("stages: {x: {job: self}}", &library);
    assert!(said.starts_with("stages.x.job: jobs contain each other in a circle: self → self"), "{said}");
    let said = refused("stages: {x: {job: {stages: {y: {job: a}}}}}", &library);
    assert!(said.starts_with("stages.x.job: jobs contain each other in a circle: a → b → c → a"), "{said}");
}

#[test]
fn an_unknown_child_is_a_clear_error() {
    let library = Defined::of(&[("a", "stages: {s: {job: b}}")]);
    let said = refused("stages: {x: {job: nope}}", &library);
    assert_eq!(said, "stages.x.job: there is no definition `nope`\n  help: define it");
    let said = refused("stages: {x: {job: a}}", &library);
    assert_eq!(said, "stages.x.job: in a: there is no definition `b`\n  help: define it");
    let said = refused("stages: {x: {job: a@2}}", &library);
    assert!(said.contains("there is no definition"), "{said}");
}

#[test]
fn a_revision_is_taken_if_one_is_named_and_else_the_latest() {
    let library = Defined::of(&[("a", "stages: {old: {run: x}}"), ("a", "stages: {new: {run: x}}")]);
    let expanded = expanded("stages: {x: {job: a}, y: {job: a@1}}", &library);
    let names: Vec<&str> = expanded.spec.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["x/", "x/new", "x", "y/", "y/old", "y"]);
    assert_eq!(expanded.made_of.len(), 2);
}

#[test]
fn names_may_hold_any_character_and_no_delimiter_collides() {
    let mut job = Job::of(
        "stages: {a/b: {job: {stages: {c: {run: x}}}}, a: {job: {stages: {b/c: {run: x}}}}, 'ö %2F': {run: x}}",
    );
    job.run_all(&[]);
    assert_eq!(job.ran, ["a%2Fb/c", "a/b%2Fc", "ö %252F"]);
}

#[test]
fn a_failed_child_fails_its_reference_siblings_finish_successors_do_not_start() {
    let text = "stages: {c: {job: {stages: {a: {run: x}, b: {after: [a], run: x}, s: {run: x}}}}, d: {after: [c], run: x}, \
                alarm: {after: [c], when: on_failure, run: x}, e: {run: x}}";
    let mut job = Job::of(text);
    job.run_all(&["c/a"]);
    assert_eq!(job.ran, ["c/a", "c/s", "alarm", "e"]);
    let states = ["c/b", "c", "d", "alarm"].map(|name| job.state(name));
    assert_eq!(states, [StageState::Skipped, StageState::Failed, StageState::Skipped, StageState::Successful]);
    assert_eq!(job.job_state(), JobState::Failed);
}

#[test]
fn a_failure_that_was_handled_inside_still_fails_the_reference() {
    let mut job = Job::of("stages: {c: {job: {stages: {a: {run: x}, h: {after: [a], when: on_failure, run: x}}}}}");
    job.run_all(&["c/a"]);
    assert_eq!((job.state("c/h"), job.state("c")), (StageState::Successful, StageState::Failed));
}

#[test]
fn a_stage_inside_that_was_skipped_since_nothing_failed_does_not_count_against_it() {
    let mut job = Job::of(
        "stages: {c: {job: {stages: {a: {run: x}, h: {after: [a], when: on_failure, run: x}}}}, d: {after: [c], run: x}}",
    );
    job.run_all(&[]);
    assert_eq!(job.ran, ["c/a", "d"]);
    assert_eq!((job.state("c/h"), job.job_state()), (StageState::Skipped, JobState::Successful));
}

#[test]
fn conditions_hold_for_nested_jobs() {
    let inner = "{stages: {i: {run: x}, always: {after: [i], when: always, run: x}}}";
    let text = format!(
        "stages: {{a: {{run: x}}, ok: {{after: [a], job: {inner}}}, bad: {{after: [a], when: on_failure, job: {inner}}}, \
         any: {{after: [a], when: always, job: {inner}}}}}"
    );
    let mut job = Job::of(&text);
    job.run_all(&[]);
    assert_eq!(job.ran, ["a", "ok/i", "ok/always", "any/i", "any/always"]);
    assert_eq!(
        (job.state("bad"), job.state("bad/always"), job.job_state()),
        (StageState::Skipped, StageState::Skipped, JobState::Successful)
    );
    let mut job = Job::of(&text);
    job.run_all(&["a"]);
    assert_eq!(job.ran, ["a", "bad/i", "bad/always", "any/i", "any/always"]);
    // Nothing inside of what did not begin runs, whatever its own condition.
    assert_eq!((job.state("ok"), job.state("ok/always")), (StageState::Skipped, StageState::Skipped));
}

#[test]
fn retry_runs_only_what_failed_and_what_never_ran_at_any_depth() {
    let deep =
        "{stages: {p: {job: {stages: {a: {run: x}, b: {after: [a], run: x}, s: {run: x}}}}, q: {after: [p], run: x}}}";
    let mut job = Job::of(&format!("stages: {{o: {{job: {deep}}}, z: {{after: [o], run: x}}, w: {{run: x}}}}"));
    job.run_all(&["o/p/b"]);
    assert_eq!(job.job_state(), JobState::Failed);
    // Another scheduler takes it over, before and in the middle of the retry.
    let mut job = job.taken_over();
    job.retry();
    let mut job = job.taken_over();
    assert_eq!(job.ready(), ["o/p/b"]);
    job.run_all(&[]);
    assert_eq!(job.ran, ["o/p/b", "o/q", "z"]);
    assert_eq!(job.job_state(), JobState::Successful);
}
