//! Docker's words that Coffer does not have, answered by name: what they are here, or that they are not there yet.
//!
//! Never: answers a word that a command has. A test holds the tables against the parser, so that a row goes when its word comes.

mod commands;
mod flags;
pub mod nouns;
mod row;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::CliError;
use crate::row::Entry;

/// The answer to a line that the parser refused for a word of Docker's; `None` if it was refused for something else.
///
/// `entry`: the command that the line names. `line`: all of its words.
pub fn answer(error: &clap::Error, entry: Option<&Entry>, line: &[impl AsRef<str>]) -> Option<CliError> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    match (error.kind(), entry) {
        (ErrorKind::InvalidSubcommand, None) => {
            let at = context(ContextKind::InvalidSubcommand)?;
            let mut rest = line.iter().map(AsRef::as_ref).skip_while(|word| *word != at).skip(1);
            let further = rest.find(|word| !word.starts_with('-'));
            further.and_then(|verb| word(&format!("{at} {verb}"))).or_else(|| word(at))
        }
        (ErrorKind::UnknownArgument, Some(entry)) => flag(entry.name, context(ContextKind::InvalidArg)?),
        (ErrorKind::UnknownArgument, None) => flag("", context(ContextKind::InvalidArg)?),
        _ => None,
    }
}

/// The answer to a command of Docker's, such as `build` or `image ls`.
pub fn word(word: &str) -> Option<CliError> {
    let row = commands::COMMANDS.iter().find(|row| row.words.contains(&word))?;
    Some(row.failure(&format!("there is no `coffer {word}`")))
}

/// The answer to a flag that Docker's command of that name has.
fn flag(command: &str, given: &str) -> Option<CliError> {
    let given = given.split('=').next().unwrap_or(given);
    let of = flags::FLAGS.iter().filter(|(commands, _)| commands.contains(&command));
    let row = of.flat_map(|(_, rows)| *rows).find(|row| row.words.contains(&given))?;
    let command = if command.is_empty() { "coffer".to_owned() } else { format!("coffer {command}") };
    let spelled = row.long(given).map_or_else(|| given.to_owned(), |long| format!("{given} ({long})"));
    Some(row.failure(&format!("`{command}` has no {spelled}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::tests::commands_in;
    use crate::commands as table;
    use crate::parser::parser;

    #[test]
    fn no_row_is_about_a_word_that_we_have() {
        for word in commands::COMMANDS.iter().flat_map(|row| row.words) {
            let first = word.split(' ').next().unwrap();
            assert!(!table::all().any(|entry| entry.is_called(first)), "`coffer {word}` is there: take its row away");
        }
        for (commands, rows) in flags::FLAGS {
            for command in *commands {
                let parser = match table::all().find(|entry| entry.name == *command) {
                    Some(entry) => entry.parser(),
                    None => parser(),
                };
                assert!(command.is_empty() || parser.get_name() == *command, "no such command: {command}");
                for word in rows.iter().flat_map(|row| row.words) {
                    let is_word = |arg: &clap::Arg| match word.strip_prefix("--") {
                        Some(long) => arg.get_long_and_visible_aliases().unwrap_or_default().contains(&long),
                        None => arg
                            .get_short_and_visible_aliases()
                            .unwrap_or_default()
                            .contains(&word.chars().nth(1).unwrap()),
                    };
                    assert!(!parser.get_arguments().any(is_word), "`coffer {command}` has {word}: take its row away");
                }
            }
        }
    }

    #[test]
    fn a_short_flag_is_said_with_dockers_long_name_of_it() {
        let shorts = [
            ("run", "-c", "--cpu-shares"),
            ("pull", "-a", "--all-tags"),
            ("rm", "-l", "--link"),
            ("push", "-a", "--all-tags"),
            ("", "-H", "--host"),
            ("", "-c", "--context"),
            ("", "-l", "--log-level"),
        ];
        for (command, short, long) in shorts {
            let said = flag(command, short).unwrap().message;
            assert!(said.contains(&format!("has no {short} ({long}): ")), "{said}");
        }
        assert!(flag("logs", "--details").unwrap().message.starts_with("`coffer logs` has no --details: "));
        assert!(flag("ps", "busybox").is_none());
    }

    #[test]
    fn what_the_hints_tell_people_to_type_is_parsed() {
        let all = commands::COMMANDS.iter().chain(flags::FLAGS.iter().flat_map(|(_, rows)| *rows));
        let hints: Vec<_> = all.filter_map(|row| row.instead).collect();
        let mut count = 0;
        for line in hints.iter().flat_map(|hint| hint.split('`').skip(1).step_by(2)) {
            // What stands for something, or for more words, is taken away by the shell or by who types it.
            let typed = line.replace("$(coffer ps -q -f status=exited -f status=created -f status=dead)", "BOX");
            let typed = typed.replace("SECONDS", "1").replace(" … ", " IMAGE ").replace("COFFER_HOME", "HOME");
            for words in commands_in(&typed).into_iter().filter(|words| words.len() > 1) {
                // A flag by itself, or a group, is a name and no line.
                let complete = words.iter().skip(1).any(|word| word.chars().any(|c| c.is_ascii_uppercase()));
                let parsed = parser().try_get_matches_from(&words);
                assert!(parsed.is_ok() || !complete, "`{line}`: {}", parsed.unwrap_err());
                count += 1;
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn words_are_lower_case_and_say_something_once() {
        let mut seen = std::collections::BTreeSet::new();
        for row in commands::COMMANDS {
            assert!(row.words.iter().all(|word| seen.insert(*word)), "{row:?} stands twice");
        }
        for (commands, rows) in flags::FLAGS {
            for command in *commands {
                let of = rows.iter().flat_map(|row| row.words);
                assert!(of.clone().all(|word| seen.insert(Box::leak(format!("{command} {word}").into_boxed_str()))));
            }
        }
        let all = commands::COMMANDS.iter().chain(flags::FLAGS.iter().flat_map(|(_, rows)| *rows));
        for row in all {
            for text in [Some(row.why), row.instead].into_iter().flatten() {
                assert!(!text.ends_with('.') && text.len() > 10 && !text.contains('\n'), "{text}");
            }
        }
    }
}
