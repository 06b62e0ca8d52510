//! Every argument of every command with an empty value: refused by its name, or listed with the reason why it may be empty.
//!
//! The arguments come from the table of commands, so that a new one cannot be forgotten.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};

use super::{MAY_BE_EMPTY, check};

/// Something for every kind of value there is, to get past the arguments that an argument needs beside it.
const CANDIDATES: [&str; 16] = [
    "x",
    "1h",
    "chip",
    "1",
    "0x30000",
    "2027-01-01T00:00:00Z",
    "kbs:///default/a/b",
    "abababababababababababababababababababababababababababababababab",
    "abababababababababababababababababababababababababababababababababababababababababababababababab",
    "abababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababababab",
    "owner",
    "always",
    "127.0.0.1:1",
    "https://a",
    "Milan:snp=24",
    "sha256:abababababababababababababababababababababababababababababababab",
];

/// Paths of all commands that do something.
fn leaves(command: &Command, path: &[String], found: &mut Vec<Vec<String>>) {
    if !command.has_subcommands() {
        found.push(path.to_vec());
    }
    for inner in command.get_subcommands() {
        let path: Vec<_> = path.iter().cloned().chain([inner.get_name().to_owned()]).collect();
        leaves(inner, &path, found);
    }
}

fn at<'a>(parser: &'a Command, path: &[String]) -> &'a Command {
    path.iter().skip(1).fold(parser, |command, name| command.find_subcommand(name).expect("a command"))
}

/// What is on the line for one argument.
fn words(arg: &Arg, value: &str) -> Vec<String> {
    match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => vec![format!("--{long}={value}")],
        Some(long) => vec![format!("--{long}")],
        None => vec![value.to_owned()],
    }
}

/// An argument's name without the brackets that say how much it is wanted.
fn plain(text: &str) -> String {
    text.replace(['<', '>', '[', ']', '.'], "")
}

/// The arguments an error says are missing.
fn missing(error: &Error, command: &Command) -> Vec<Arg> {
    let Some(ContextValue::Strings(named)) = error.get(ContextKind::InvalidArg) else { return Vec::new() };
    let named = |arg: &Arg| named.iter().any(|name| plain(name) == plain(&arg.to_string()));
    command.get_arguments().filter(|arg| named(arg)).cloned().collect()
}

/// What the parser and our check say of a line.
fn said(parser: &mut Command, line: &[String]) -> Result<(), Error> {
    let matches = parser.try_get_matches_from_mut(line)?;
    check(parser, &matches)
}

/// The error of a line with this argument empty and whatever it needs beside it.
fn with_empty(path: &[String], arg: &Arg) -> Result<(), Error> {
    let mut parser = crate::parser::parser();
    parser.build();
    // Arguments beside it, each with the candidate that is tried: those without which its place would be another's, to begin with.
    let before = |other: &&Arg| arg.is_positional() && other.is_positional() && other.get_index() < arg.get_index();
    let mut beside: Vec<(Arg, usize)> =
        at(&parser, path).get_arguments().filter(before).map(|other| (other.clone(), 0)).collect();
    for _ in 0..200 {
        let mut line = path.to_vec();
        let value = |arg: &Arg, candidate: usize| {
            let first = arg.get_possible_values().first().map(|value| value.get_name().to_owned());
            first.unwrap_or_else(|| CANDIDATES[candidate % CANDIDATES.len()].to_owned())
        };
        let all = beside.iter().map(|(arg, at)| (arg, value(arg, *at))).chain([(arg, String::new())]);
        let (mut positional, options): (Vec<_>, Vec<_>) = all.partition(|(arg, _)| arg.is_positional());
        positional.sort_by_key(|(arg, _)| arg.get_index());
        for (arg, value) in options.into_iter().chain(positional) {
            let least = arg.get_num_args().map_or(1, |range| range.min_values().max(1));
            let times = if arg.is_positional() { least } else { 1 };
            (0..times).for_each(|_| line.extend(words(arg, &value)));
        }
        let error = match said(&mut parser, &line) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let command = at(&parser, path).clone();
        match error.kind() {
            ErrorKind::MissingRequiredArgument => {
                let new = missing(&error, &command);
                assert!(!new.is_empty(), "{line:?}: {error}");
                beside.extend(new.into_iter().map(|arg| (arg, 0)));
            }
            ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
                let text = plain(&error.to_string());
                let blamed = |other: &Arg| other != arg && text.contains(&format!("'{}'", plain(&other.to_string())));
                match beside.iter_mut().find(|(other, _)| blamed(other)) {
                    Some((_, candidate)) if *candidate < CANDIDATES.len() => *candidate += 1,
                    _ => return Err(error),
                }
            }
            _ => return Err(error),
        }
    }
    panic!("{path:?} {arg}: no line fits");
}

#[test]
fn no_argument_of_any_command_takes_an_empty_value_unnoticed() {
    let mut parser = crate::parser::parser();
    parser.build();
    let mut paths = Vec::new();
    leaves(&parser, &["coffer".to_owned()], &mut paths);
    assert!(paths.len() > 40, "only {} commands found", paths.len());
    let (mut asked, mut wrong) = (0, Vec::new());
    for path in &paths {
        let command = at(&parser, path);
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            asked += 1;
            let allowed = MAY_BE_EMPTY.iter().find(|(id, ..)| *id == arg.get_id().as_str());
            let name = arg.get_long().map_or_else(|| plain(&arg.to_string()), |long| format!("--{long}"));
            match (with_empty(path, arg), allowed) {
                // From its first value on.
                (Ok(()), Some((_, 0, _))) => {}
                (Ok(()), _) => wrong.push(format!("{path:?} takes an empty {name}")),
                (Err(error), Some((_, 0, why))) => wrong.push(format!("{path:?} {name} may be empty ({why}): {error}")),
                (Err(error), _) => {
                    let text = error.to_string();
                    let by_name =
                        plain(&text).contains(&name) && (text.contains("''") || text.contains("value is required"));
                    if !by_name {
                        wrong.push(format!("{path:?} {name} is not refused by name: {text}"));
                    }
                }
            }
        }
    }
    assert!(asked > 150, "only {asked} arguments found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
