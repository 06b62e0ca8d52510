//! From a command line to an exit code.
//!
//! Trusts: nobody; the words come from whoever calls. What the parser refuses is said in its words, unless it is Docker's word
//! for something, which is answered by name.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::commands::{self, GROUPS};
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::exits::Exits;
use crate::row::{self, Does, Entry};
use crate::{docker, values};

/// What may stand before and behind every command.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// Print JSON instead of tables and text.
    #[arg(long, global = true)]
    json: bool,

    /// Where boxes, images and keys are kept [default: /var/lib/coffer as root, else ~/.local/share/coffer].
    #[arg(long, global = true, env = "COFFER_HOME", value_name = "DIR", hide_env_values = true)]
    home: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  coffer run --rm busybox echo hello
  coffer help kbs secret put
  coffer --json ps --all";

/// The whole parser.
pub fn parser() -> clap::Command {
    let parser = Globals::augment_args(clap::Command::new("coffer"))
        .about("Runs OCI images in attested microVMs.")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .subcommand_required(true)
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

/// Does what a command line says.
pub fn main(words: &[OsString]) -> ExitCode {
    let mut parser = parser();
    let parsed = parser.try_get_matches_from_mut(words).and_then(|matches| {
        values::check(&mut parser, &matches)?;
        Ok(matches)
    });
    let matches = match parsed {
        Ok(matches) => matches,
        Err(error) => return refuse(&error, words),
    };
    coffer_rim::log::init("warn");
    let Globals { json, home } = match row::parse(&matches) {
        Ok(globals) => globals,
        Err(failure) => return fail(&failure, false, Exits::Class),
    };
    // One provider in the whole process, chosen here and nowhere else.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return fail(&CliError::new(Class::Internal, "a TLS provider was already installed"), json, Exits::Class);
    }
    let Some((entry, matches)) = commands::chosen(&matches) else {
        return fail(
            &CliError::new(Class::Internal, "the parser knows a command that the table does not"),
            json,
            Exits::Class,
        );
    };
    let Does::Run(run) = entry.does else {
        return fail(&CliError::new(Class::Internal, "a command without an act"), json, Exits::Class);
    };
    match run(matches, &Context::new(json, home)) {
        Ok(code) => code,
        Err(failure) => fail(&failure, json, entry.exits),
    }
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

fn fail(failure: &CliError, json: bool, exits: Exits) -> ExitCode {
    failure.print("coffer", json);
    ExitCode::from(exits.code(failure))
}

/// Says what is wrong with a line that the parser refused; `--help` and `--version` also come this way and are no failure.
fn refuse(error: &clap::Error, words: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        coffer_rim::print!("{}", error.render());
        return ExitCode::SUCCESS;
    }
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let json = words.iter().any(|word| word == "--json");
    let entry = named(words.iter().map(AsRef::as_ref));
    let exits = entry.map_or(Exits::Class, |entry| entry.exits);
    if let Some(answer) = docker::answer(error, entry, &words) {
        return fail(&answer, json, exits);
    }
    if let (ErrorKind::MissingSubcommand, Some(ContextValue::String(path))) =
        (error.kind(), error.get(ContextKind::InvalidSubcommand))
    {
        return unfinished(path, json);
    }
    let message = first_line(error);
    let failure = CliError::new(Class::Usage, message).hint("coffer --help lists commands and flags");
    if json {
        return fail(&failure, true, exits);
    }
    coffer_rim::out::write_error(format_args!("{}", error.render()));
    ExitCode::from(exits.code(&failure))
}

fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// The command a line names, though the rest of the line may be wrong.
fn named<'a>(words: impl Iterator<Item = &'a str>) -> Option<&'static Entry> {
    let globals = Globals::augment_args(clap::Command::new("coffer"));
    let takes_value = |word: &str| {
        let flag =
            word.strip_prefix("--").and_then(|name| globals.get_arguments().find(|arg| arg.get_long() == Some(name)));
        flag.is_some_and(|arg| arg.get_action().takes_values())
    };
    let mut words = words.skip(1);
    while let Some(word) = words.next() {
        if takes_value(word) {
            words.next();
        } else if !word.starts_with('-') {
            return commands::all().find(|entry| entry.is_called(word));
        }
    }
    None
}

#[cfg(test)]
mod tests;
