use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

/// Every command with its path, the program itself first.
fn every() -> Vec<(String, clap::Command)> {
    fn walk(path: &str, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
        all.push((path.to_owned(), command.clone()));
        for inner in command.get_subcommands() {
            walk(&format!("{path} {}", inner.get_name()), inner, all);
        }
    }
    let mut all = Vec::new();
    walk("coffer-verifier", &Cli::command(), &mut all);
    all
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_help_has_examples_that_the_parser_accepts() {
    for (path, command) in every() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{path} --help has no Examples"));
        assert!(examples.contains(&path), "no example of {path} is one:\n{examples}");
        let whole = examples.replace("\\\n", " ");
        for line in whole.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Err(error) = Cli::try_parse_from(line.split_whitespace()) {
                panic!("{path} --help: {line}\n{error}");
            }
        }
    }
}

#[test]
fn no_flag_takes_an_empty_value() {
    let mut count = 0;
    for (path, command) in every() {
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            let flag = format!("--{}=", arg.get_long().unwrap());
            let error = Cli::try_parse_from(path.split(' ').chain([flag.as_str()])).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
                    && error.to_string().contains(&flag[..flag.len() - 1]),
                "{path} {flag}: {error}"
            );
            count += 1;
        }
    }
    assert!(count > 5, "{count} flags");
}

#[test]
fn help_is_a_command() {
    for line in ["coffer-verifier help", "coffer-verifier help serve", "coffer-verifier help check"] {
        assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().kind(), ErrorKind::DisplayHelp, "{line}");
    }
}
