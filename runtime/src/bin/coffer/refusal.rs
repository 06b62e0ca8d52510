//! What is said of a line that the parser refused, and of one that asks for help.
//!
//! Trusts: nobody; the words come from whoever calls. They are answered in the parser's words, with what is missing or near by
//! its name, unless they are somebody else's words for something we have.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use coffer_rim::usage;

use crate::commands;
use crate::docker;
use crate::error::{Class, CliError};
use crate::exits::Exits;
use crate::parser::parser;
use crate::row::{Does, Entry};

/// Says what is wrong; `--help` and `--version` also come this way and are no failure.
pub fn refuse(mut error: clap::Error, words: &[OsString]) -> ExitCode {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let json = words.iter().any(|word| word == "--json");
    if !error.use_stderr() {
        match (json, error.kind()) {
            (false, _) => coffer_rim::print!("{}", error.render()),
            (true, ErrorKind::DisplayVersion) => coffer_rim::println!("{}", crate::host::version::json()),
            (true, _) => coffer_rim::println!("{}", usage::help(&error.render().to_string())),
        }
        return Exits::Class.verdict(ExitCode::SUCCESS);
    }
    let named = named(words.iter().map(AsRef::as_ref));
    let entry = named.entries.first().copied();
    let exits = entry.map_or(Exits::Class, |entry| entry.exits);
    let foreign = docker::answer(&error, entry, &words).or_else(|| other_word(&error, &named));
    if let Some(answer) = foreign {
        return fail(&answer, json, exits);
    }
    if let (ErrorKind::MissingSubcommand, Some(path)) = (error.kind(), text(&error, ContextKind::InvalidSubcommand)) {
        return unfinished(path, json);
    }
    suggest(&mut error, &named);
    let failure = CliError::new(Class::Usage, usage::message(&error.render().to_string())).hint(hint(&error, &named));
    if json {
        return fail(&failure, true, exits);
    }
    coffer_rim::out::write_error(format_args!("{}", error.render()));
    ExitCode::from(exits.code(&failure))
}

/// Says a failure.
pub fn fail(failure: &CliError, json: bool, exits: Exits) -> ExitCode {
    failure.print("coffer", json);
    ExitCode::from(exits.code(failure))
}

/// Help of `path`, which wants a further word.
fn unfinished(path: &str, json: bool) -> ExitCode {
    let failure =
        CliError::new(Class::Usage, format!("`{path}` wants a command")).hint(format!("{path} --help lists them"));
    if json {
        return fail(&failure, true, Exits::Class);
    }
    let mut parser = parser();
    parser.build();
    let found = path.split(' ').skip(1).try_fold(&mut parser, |at, word| at.find_subcommand_mut(word));
    let help = found.map(|found| found.render_help().to_string()).unwrap_or_default();
    coffer_rim::out::write_error(format_args!("{help}"));
    ExitCode::from(Exits::Class.code(&failure))
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text),
        _ => None,
    }
}

/// What is near, and where what there is can be read.
fn hint(error: &clap::Error, named: &Named) -> String {
    let near = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let near = near.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(word) => Some(word.clone()),
        ContextValue::Strings(words) => words.first().cloned(),
        _ => None,
    });
    let read = named.where_to_read();
    near.map_or_else(|| read.clone(), |near| format!("did you mean {near}? {read}"))
}

/// Adds the command that was meant by two letters in the wrong order, say, and takes away what helps nobody: that a word with a
/// dash could have been meant as a value.
fn suggest(error: &mut clap::Error, named: &Named) {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(word) = text(error, ContextKind::InvalidSubcommand)
    {
        let near: Vec<_> = near(word, named.further().map(|entry| entry.name)).into_iter().map(str::to_owned).collect();
        if !near.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(near));
        }
    }
    if error.kind() == ErrorKind::UnknownArgument {
        error.remove(ContextKind::Suggested);
    }
}

/// The words that a typing error makes into this one, the nearest first.
fn near<'a>(word: &str, words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let most = if word.len() < 5 { 1 } else { 2 };
    let mut near: Vec<_> = words.map(|other| (distance(word, other), other)).filter(|(far, _)| *far <= most).collect();
    near.sort_unstable();
    near.into_iter().map(|(_, other)| other).collect()
}

/// Letters to add, leave out or change, and neighbours to swap, until one word is the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<_>, Vec<_>) = (one.chars().collect(), other.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for i in 1..=one.len() {
        let mut row = vec![i];
        for j in 1..=other.len() {
            let change = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[one.len()][other.len()]
}

/// The commands a line names, though the rest of the line may be wrong, the outermost first.
pub struct Named {
    /// Their rows.
    pub entries: Vec<&'static Entry>,
}

impl Named {
    /// `coffer` and its words.
    fn path(&self) -> String {
        self.entries.iter().fold("coffer".to_owned(), |path, entry| format!("{path} {}", entry.name))
    }

    /// The commands that may stand behind them.
    fn further(&self) -> impl Iterator<Item = &'static Entry> {
        let (all, inner): (_, &'static [Entry]) = match self.entries.last().map(|entry| entry.does) {
            None => (Some(commands::all()), &[]),
            Some(does) => (None, does.commands()),
        };
        all.into_iter().flatten().chain(inner)
    }

    /// What lists what there is.
    fn where_to_read(&self) -> String {
        match self.entries.last().map(|entry| entry.does) {
            None => "coffer --help lists commands and flags".to_owned(),
            Some(Does::Choose(_)) => format!("{} --help lists its commands", self.path()),
            Some(Does::Run(_) | Does::Either(..)) => format!("{} --help shows its flags and arguments", self.path()),
        }
    }
}

/// The commands that these words name.
pub fn named<'a>(words: impl Iterator<Item = &'a str>) -> Named {
    let mut parser = parser();
    parser.build();
    let mut at = &parser;
    let mut named = Named { entries: Vec::new() };
    let mut words = words.skip(1);
    while let Some(word) = words.next() {
        let is_it = |arg: &&clap::Arg| word.strip_prefix("--").is_some_and(|long| arg.get_long() == Some(long));
        if word.starts_with('-') {
            if at.get_arguments().find(is_it).is_some_and(|arg| arg.get_action().takes_values()) {
                words.next();
            }
            continue;
        }
        let entry = named.further().find(|entry| entry.is_called(word));
        let Some((entry, inner)) = entry.and_then(|entry| Some((entry, at.find_subcommand(entry.name)?))) else {
            break;
        };
        named.entries.push(entry);
        at = inner;
        if matches!(entry.does, Does::Run(_)) {
            break;
        }
    }
    named
}

/// The answer to somebody else's word for a command that a group has.
fn other_word(error: &clap::Error, named: &Named) -> Option<CliError> {
    let word = text(error, ContextKind::InvalidSubcommand).filter(|_| error.kind() == ErrorKind::InvalidSubcommand)?;
    called_otherwise(named, word)
}

/// What a group calls what others call `word`, and why it does not have some things at all.
pub fn called_otherwise(named: &Named, word: &str) -> Option<CliError> {
    let group = named.entries.last()?;
    let path = named.path();
    let failure = CliError::new(Class::Usage, format!("there is no `{path} {word}`"));
    if path == "coffer kbs secret" && ["get", "show", "read", "cat"].contains(&word) {
        return Some(failure.hint("values go in and never come back; `coffer kbs secret list` shows what is there"));
    }
    let commands = group.does.commands();
    let mut alike = OTHER_WORDS.iter().filter(|words| words.contains(&word)).flat_map(|words| words.iter());
    let ours = alike.find_map(|other| commands.iter().find(|entry| entry.name == *other))?;
    Some(failure.hint(format!("`{path} {}` does it", ours.name)))
}

/// Words that mean one thing.
const OTHER_WORDS: &[&[&str]] = &[
    &["remove", "revoke", "delete", "del", "erase", "destroy", "unset"],
    &["put", "add", "set", "create", "new", "store", "update", "insert"],
    &["list", "show", "get", "inspect", "describe", "view", "cat", "print"],
    &["init", "keygen", "generate", "create", "new", "gen"],
    &["verify", "check", "validate"],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_as_far_as_its_typing_errors() {
        let cases =
            [("rnu", "run", 1), ("run", "run", 0), ("imgaes", "images", 1), ("", "ps", 2), ("stop", "start", 3)];
        for (one, other, far) in cases {
            assert_eq!((distance(one, other), distance(other, one)), (far, far), "{one} {other}");
        }
        assert_eq!(near("rnu", ["ps", "run", "rm"].into_iter()), ["run"]);
        assert_eq!(near("frobnicate", commands::all().map(|entry| entry.name)), [""; 0]);
    }

    #[test]
    fn a_line_names_its_commands_whatever_flags_stand_between() {
        let path = |line: &str| named(line.split(' ')).path();
        for line in ["coffer kbs secret put x", "coffer --home x kbs --profile y --json secret --nosuch put z"] {
            assert_eq!(path(line), "coffer kbs secret put", "{line}");
        }
        assert_eq!(path("coffer ls"), "coffer ps");
        assert_eq!(path("coffer kbs nosuch put"), "coffer kbs");
        assert_eq!(path("coffer nosuch run"), "coffer");
    }

    #[test]
    fn other_words_lead_to_a_command_that_is_there() {
        let hint = |line: &str, word: &str| called_otherwise(&named(line.split(' ')), word).and_then(|said| said.hint);
        for (line, word, ours) in [
            ("coffer kbs secret", "delete", "`coffer kbs secret remove` does it"),
            ("coffer kbs secret", "create", "`coffer kbs secret put` does it"),
            ("coffer kbs reference", "put", "`coffer kbs reference add` does it"),
            ("coffer kbs manifest", "delete", "`coffer kbs manifest revoke` does it"),
            ("coffer manifest", "init", "`coffer manifest keygen` does it"),
            ("coffer id-key", "generate", "`coffer id-key init` does it"),
            ("coffer owner", "get", "`coffer owner show` does it"),
        ] {
            assert_eq!(hint(line, word).as_deref(), Some(ours), "{line} {word}");
        }
        assert!(hint("coffer kbs secret", "get").unwrap().contains("never come back"));
        assert_eq!(hint("coffer kbs secret", "frobnicate"), None);
        assert_eq!(hint("coffer", "delete"), None);
    }
}
