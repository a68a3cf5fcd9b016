//! Where settings come from.

use muster_client::v1::JobState;

use crate::harness::{JOB, World, bare, said, view};

#[test]
fn flags_beat_the_environment_which_beats_the_file_which_beats_the_defaults() {
    let world = World::new();
    world.cluster.state().views.push(view(JobState::Running));
    assert!(world.say(&["jobs"]).out.starts_with("JOB "), "the default is a table");
    let file = world.file("config.toml", "output = 'json'");
    assert!(world.say(&["jobs", "--config", &file]).out.starts_with("[\n"), "the file beats the default");
    let mut command = world.muster(&["jobs"]);
    command.env("MUSTER_CONFIG", &file).env("MUSTER_OUTPUT", "name");
    assert_eq!(said(command).out, format!("{JOB}\n"), "the environment beats the file");
    let mut command = world.muster(&["jobs", "-o", "jsonl"]);
    command.env("MUSTER_CONFIG", &file).env("MUSTER_OUTPUT", "name");
    assert!(said(command).out.starts_with('{'), "the flag beats the environment");
}

#[test]
fn the_clusters_address_comes_from_flag_environment_or_file_in_that_order() {
    let world = World::new();
    let dead = "127.0.0.1:1";
    let alive = world.scheduler.address().to_owned();
    let quick = "call_timeout = '300ms'\n";
    let usual =
        |schedulers: &str| world.file(".config/muster/config.toml", &format!("{quick}schedulers = ['{schedulers}']"));
    usual(&alive);
    assert_eq!(said(bare(world.home.path(), &["jobs"])).code, Some(0), "the file at its usual place");
    usual(dead);
    let answer = said(bare(world.home.path(), &["jobs"]));
    assert_eq!(answer.code, Some(5));
    assert!(answer.err.contains(dead) && answer.err.contains("muster up"), "{}", answer.err);
    assert_eq!(world.say(&["jobs"]).code, Some(0), "the environment beats the file");
    assert_eq!(world.say(&["jobs", "--schedulers", dead]).code, Some(5), "the flag beats the environment");
}

#[test]
fn an_unknown_key_is_an_error_that_names_key_and_file() {
    let world = World::new();
    let file = world.file("wrong.toml", "[executor]\ncpu = 4\n");
    let answer = world.say(&["jobs", "--config", &file]);
    assert_eq!((answer.code, answer.out.as_str()), (Some(2), ""));
    for part in [file.as_str(), "`cpu`", "`cpus`", "line 2"] {
        assert!(answer.err.contains(part), "{part}: {}", answer.err);
    }
    let answer = world.say(&["jobs", "--config", "/no/such/file"]);
    assert_eq!(answer.code, Some(2));
    assert!(answer.err.contains("/no/such/file"), "{}", answer.err);
}

#[test]
fn color_is_for_terminals_unless_it_is_asked_for() {
    let world = World::new();
    world.cluster.state().views.push(view(JobState::Failed));
    assert!(!world.say(&["jobs"]).out.contains('\x1b'));
    assert!(world.say(&["jobs", "--color", "always"]).out.contains('\x1b'));
    let mut command = world.muster(&["jobs"]);
    command.env("MUSTER_COLOR", "always").env("NO_COLOR", "1");
    assert!(said(command).out.contains('\x1b'), "what is set for muster beats what is set for everything");
}
