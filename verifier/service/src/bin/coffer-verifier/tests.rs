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
fn exit_codes_of_every_command_stand_in_the_verifiers_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verifier.md");
    let page = std::fs::read_to_string(path).unwrap();
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `coffer-verifier ")?.split('`').next());
    let mut rows: Vec<_> = rows.collect();
    let command = Cli::command();
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
    let mut wanted: Vec<_> = shown.map(clap::Command::get_name).collect();
    rows.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(rows, wanted);
}

#[test]
fn help_is_wrapped_once_to_the_readers_width() {
    let found = paragraphs::broken_sentences(&Cli::command());
    assert!(found.is_empty(), "{}", found.join("\n"));
}
