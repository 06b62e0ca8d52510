//! Whether the help of a program holds: each command has examples that the parser takes, and no flag takes nothing.

use clap::{Arg, Command, error::ErrorKind};

/// All of it holds.
pub fn holds(program: &clap::Command) {
    let mistakes = mistakes_of_help(program);
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
}

/// Everything that is wrong.
fn mistakes_of_help(program: &clap::Command) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut all = Vec::new();
    walk(program.get_name(), program, &mut all);
    let parse = |words: &mut dyn Iterator<Item = &str>| program.clone().try_get_matches_from(words);
    let mut flags = 0;
    for (path, command) in &all {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let Some((_, examples)) = help.split_once("Examples:\n") else {
            mistakes.push(format!("{path} --help has no Examples"));
            continue;
        };
        if !examples.contains(path.as_str()) {
            mistakes.push(format!("no example of {path} is one:\n{examples}"));
        }
        let whole = examples.replace("\\\n", " ");
        for line in whole.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Err(error) = parse(&mut line.split_whitespace()) {
                mistakes.push(format!("{path} --help: {line}\n{error}"));
            }
        }
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            let Some(name) = arg.get_long() else {
                mistakes.push(format!("{path} takes a value that no flag names"));
                continue;
            };
            let (name, flag) = (format!("--{name}"), format!("--{name}="));
            let empty = parse(&mut path.split(' ').chain([flag.as_str()]));
            let refused = empty.err().is_some_and(|error| {
                matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation)
                    && error.to_string().contains(&name)
            });
            if !refused {
                mistakes.push(format!("{path} {flag} is taken"));
            }
            flags += 1;
        }
    }
    if flags == 0 {
        mistakes.push("there is no flag that takes a value".to_owned());
    }
    for (path, _) in all.iter().filter(|(path, _)| path.contains(' ')) {
        let words = path.split_once(' ').map_or("", |(_, words)| words);
        let asked = format!("{} help {words}", program.get_name());
        let shown = parse(&mut asked.split(' '));
        if shown.err().map(|error| error.kind()) != Some(ErrorKind::DisplayHelp) {
            mistakes.push(format!("{asked} shows no help"));
        }
    }
    mistakes
}

/// Every command with its path, the program itself first.
fn walk(path: &str, command: &clap::Command, all: &mut Vec<(String, clap::Command)>) {
    all.push((path.to_owned(), command.clone()));
    for inner in command.get_subcommands() {
        walk(&format!("{path} {}", inner.get_name()), inner, all);
    }
}

fn program(examples: &'static str, flag: Arg) -> Command {
    let inner = Command::new("serve").arg(flag).after_help(examples);
    Command::new("p").after_help("Examples:\n  p serve --state x").subcommand(inner).subcommand_required(true)
}

fn state() -> Arg {
    Arg::new("state").long("state").value_parser(clap::builder::NonEmptyStringValueParser::new())
}

#[test]
fn help_that_holds_has_no_mistake_and_each_mistake_is_named() {
    assert_eq!(mistakes_of_help(&program("Examples:\n  p serve --state x", state())), Vec::<String>::new());
    for (program, word) in [
        (program("", state()), "no Examples"),
        (program("Examples:\n  p other", state()), "no example of p serve"),
        (program("Examples:\n  p serve --stat x", state()), "--stat"),
        (program("Examples:\n  p serve", Arg::new("state").long("state")), "--state= is taken"),
        (program("Examples:\n  p serve x", Arg::new("state")), "no flag names"),
    ] {
        let found = mistakes_of_help(&program);
        assert!(found.iter().any(|mistake| mistake.contains(word)), "{word}: {found:?}");
    }
}
