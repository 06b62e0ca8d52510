#[path = "../../../../../tests/help.rs"]
mod help;
#[path = "../../../../../tests/paragraphs.rs"]
mod paragraphs;

use clap::CommandFactory as _;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_has_examples_that_the_parser_accepts_and_no_flag_takes_nothing() {
    help::holds(&Cli::command());
}

#[test]
fn help_is_wrapped_once_to_the_readers_width() {
    let found = paragraphs::broken_sentences(&Cli::command());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
