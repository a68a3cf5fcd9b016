//! docs/cli.md says what is true. Its generated parts lie between comments and are compared with what the program does;
//! `UPDATE_DOCUMENTATION=1 cargo test -p muster-cli documentation` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use clap::CommandFactory as _;

use crate::arguments::Arguments;
use crate::configuration::File;
use crate::exit::Exit;
use crate::output::tests::documented_views;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/cli.md");

/// The text with the part after `marker` replaced.
fn with_part(text: &str, marker: &str, part: &str) -> String {
    let start = text.find(marker).unwrap_or_else(|| panic!("docs/cli.md has no {marker}")) + marker.len();
    let end = start + text[start..].find("<!-- end -->").expect("every part ends");
    format!("{}\n{part}{}", &text[..start], &text[end..])
}

fn verbs() -> String {
    let mut text = String::new();
    for verb in Arguments::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
        writeln!(text, "| `{}` | {} |", verb.get_name(), verb.get_about().expect("every verb says what it does"))
            .unwrap();
    }
    text
}

fn exit_codes() -> String {
    let mut text = String::new();
    for exit in Exit::ALL {
        writeln!(text, "| {} | {} |", exit.code(), exit.meaning()).unwrap();
    }
    text
}

#[test]
fn documentation_of_the_command_line_is_true() {
    let found = std::fs::read_to_string(PATH).unwrap();
    let mut expected = with_part(&found, "<!-- verbs -->", &verbs());
    expected = with_part(&expected, "<!-- exit-codes -->", &exit_codes());
    for (name, json) in documented_views() {
        expected = with_part(&expected, &format!("<!-- json: {name} -->"), &format!("```json\n{json}```\n"));
    }
    if std::env::var_os("UPDATE_DOCUMENTATION").is_some() {
        std::fs::write(PATH, &expected).unwrap();
    } else {
        assert!(
            found == expected,
            "docs/cli.md is behind: run UPDATE_DOCUMENTATION=1 cargo test -p muster-cli documentation"
        );
    }
}

/// The sample has every key, and no key that is unknown.
#[test]
fn documentation_of_the_configuration_is_complete() {
    let text = std::fs::read_to_string(PATH).unwrap();
    let sample = text.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let File { schedulers, output, color, call_timeout, data_dir, up, scheduler, executor } =
        File::parse(sample, Path::new(PATH)).unwrap();
    let set = [
        schedulers.is_some(),
        output.is_some(),
        color.is_some(),
        call_timeout.is_some(),
        data_dir.is_some(),
        up.listen.is_some(),
        scheduler.state.is_some(),
        scheduler.cluster.is_some(),
        scheduler.listen.is_some(),
        scheduler.advertise.is_some(),
        scheduler.session_ttl.is_some(),
        scheduler.lost_after.is_some(),
        scheduler.allow_remote.is_some(),
        scheduler.max_jobs.is_some(),
        scheduler.max_tasks.is_some(),
        scheduler.callback_secret_file.is_some(),
        executor.id.is_some(),
        executor.mode.is_some(),
        executor.listen.is_some(),
        executor.advertise.is_some(),
        executor.cpus.is_some(),
        executor.memory.is_some(),
        executor.allow_remote.is_some(),
        !executor.resources.is_empty(),
        !executor.devices.is_empty(),
        !executor.labels.is_empty(),
    ];
    assert_eq!(set, [true; 26], "a key is not in the sample");
}
