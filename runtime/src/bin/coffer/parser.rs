//! The whole parser, made from the table of commands.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{ArgMatches, Args as _};

use crate::commands::{self, GROUPS};
use crate::docker::nouns::place_of_command;
use crate::row::Entry;
use crate::values;

/// What may stand before and behind every command.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// Print one JSON document instead of tables and text.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,

    /// Where boxes, images and keys are kept [default: $COFFER_HOME, else /var/lib/coffer as root, else $XDG_DATA_HOME/coffer, else ~/.local/share/coffer].
    #[arg(long, global = true, value_name = "DIR", help_heading = EVERYWHERE)]
    pub home: Option<PathBuf>,
}

/// Heading of the flags that every command has, apart from its own.
const EVERYWHERE: &str = "Everywhere";

const EXAMPLES: &str = "Examples:
  coffer run --rm busybox echo hello
  coffer help kbs secret put
  coffer --json ps --all";

/// What a line says, by the parser of its command alone where that takes the line: the arguments of all others are more than
/// most commands do.
///
/// # Errors
/// The whole parser's, which knows all there is to say; help too.
pub fn parse(words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let word = words.get(place_of_command(words));
    let narrow = commands::all().find(|entry| word.is_some_and(|word| word == entry.name)).map(of_command);
    narrow.and_then(|parser| parse_by(parser, words).ok()).map_or_else(|| parse_by(parser(), words), Ok)
}

fn parse_by(mut parser: clap::Command, words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let matches = parser.try_get_matches_from_mut(words)?;
    values::check(&mut parser, &matches)?;
    Ok(matches)
}

fn of_command(entry: &Entry) -> clap::Command {
    of_none().subcommand(entry.parser())
}

fn of_none() -> clap::Command {
    Globals::augment_args(clap::Command::new("coffer")).disable_help_subcommand(true).subcommand_required(true)
}

/// The whole parser.
pub fn parser() -> clap::Command {
    let parser = of_none()
        .about("Runs OCI images in attested microVMs.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(commands::all().map(Entry::parser))
        .after_help(EXAMPLES);
    let list = grouped(&parser);
    parser.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}{{after-help}}"
    ))
}

/// The commands under their headings.
fn grouped(parser: &clap::Command) -> String {
    let mut text = String::new();
    for group in GROUPS {
        let _ = writeln!(text, "{}:", group.heading);
        let shown = group.commands.iter().filter_map(|entry| parser.find_subcommand(entry.name));
        for command in shown.filter(|command| !command.is_hide_set()) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let aliases: Vec<_> = command.get_visible_aliases().collect();
            let aliases = if aliases.is_empty() { String::new() } else { format!(" [also: {}]", aliases.join(", ")) };
            let _ = writeln!(text, "  {:<14} {about}{aliases}", command.get_name());
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line is read as the whole parser reads it, whatever stands before its command.
    #[test]
    fn the_parser_of_one_command_reads_lines_as_the_whole_one_does() {
        let mut narrow = 0;
        for line in [
            "coffer run busybox echo hello",
            "coffer --json --home /x run --rm -p 80:80 --env A=1 busybox echo --json",
            "coffer --home=/x ps -a",
            "coffer ps --json --home /y",
            "coffer ls",
            "coffer kbs secret list --kbs https://broker:8443 --kbs-pin 00",
            "coffer run",
            "coffer run --nosuch busybox",
            "coffer --home run ps",
            "coffer --home ps",
            "coffer --nosuch run busybox",
            "coffer frobnicate",
            "coffer run --help",
            "coffer --help",
            "coffer --version",
            "coffer run --name= busybox",
            "coffer -- run busybox",
            "coffer",
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let show =
                |read: Result<ArgMatches, clap::Error>| read.map(|it| format!("{it:?}")).map_err(|it| it.to_string());
            assert_eq!(show(parse(&words)), show(parse_by(parser(), &words)), "{line}");
            let entry =
                commands::all().find(|entry| words.get(place_of_command(&words)).is_some_and(|it| it == entry.name));
            narrow += usize::from(entry.is_some_and(|entry| parse_by(of_command(entry), &words).is_ok()));
        }
        assert_eq!(narrow, 5);
    }
}
