//! The help of every verb, as people see it.

use clap::CommandFactory as _;

use crate::arguments::Arguments;

/// As in a terminal of this width.
const COLUMNS: usize = 100;

#[test]
fn the_grammar_has_no_contradictions() {
    Arguments::command().debug_assert();
}

#[test]
fn the_help_of_every_verb_is_as_it_was_last_read() {
    let mut command = Arguments::command().term_width(COLUMNS);
    command.build();
    insta::assert_snapshot!("help-muster", command.render_long_help());
    for verb in command.get_subcommands_mut() {
        let name = verb.get_name().to_owned();
        if name != "help" {
            let help = verb.clone().term_width(COLUMNS).render_long_help();
            insta::assert_snapshot!(format!("help-{name}"), help);
        }
    }
}
