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
fn the_help_of_check_lists_every_key_of_the_configuration() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verifier-service.md");
    let page = std::fs::read_to_string(path).unwrap();
    let table = page.split_once("\n## Configuration\n").unwrap().1.split("\n## ").next().unwrap();
    let rows: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix("| `")).collect();
    assert!(rows.len() > 12, "{rows:?}");
    let mut command = Cli::command();
    let help = command.find_subcommand_mut("check").unwrap().render_help().to_string();
    let is_key = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    for row in rows {
        // The names in the first cell; of a table, those in the second too.
        let (names, about) = row.split_once(" | ").unwrap();
        let is_table = ["[tls", "[[api_keys", "[limits"].iter().any(|table| names.starts_with(table));
        let tables = if is_table { about } else { "" };
        let words = names.split(['`', '[', ']', '.']).chain(tables.split('`').skip(1).step_by(2));
        for key in words.filter(|word| word.len() > 2).filter(is_key) {
            assert!(help.contains(key), "{key}: {help}");
        }
    }
    let others = ["floor", "rego", "bundle_key", "simulated_evidence_is_believed_of", "service", "simulated_service"];
    for key in others {
        assert!(help.contains(key), "{key}");
    }
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
