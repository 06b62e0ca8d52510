//! `coffer help`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::commands;
use crate::context::Context;
use crate::docker;
use crate::error::{Class, CliError};
use crate::parser::parser;
use crate::refusal;
use crate::row::{Does, Entry};

/// Print help of a command.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer help
  coffer help kbs secret put
  coffer --json help                # every command, for scripts")]
pub struct Args {
    /// The command, word by word.
    #[arg(value_name = "COMMAND")]
    words: Vec<String>,
}

/// Prints it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let words: Vec<_> = args.words.iter().map(String::as_str).collect();
    let text = text(&words)?;
    if context.json {
        let mut rows = Vec::new();
        for entry in commands::all() {
            describe(entry, "", &mut rows);
        }
        let named = refusal::named(["coffer"].into_iter().chain(words.iter().copied()));
        let wanted = named.entries.iter().map(|entry| entry.name).collect::<Vec<_>>().join(" ");
        let under = |name: &str| wanted.is_empty() || name == wanted || name.starts_with(&format!("{wanted} "));
        rows.retain(|row| row["command"].as_str().is_some_and(under));
        println!("{}", Value::from(rows));
    } else {
        print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What `--help` behind these words prints.
///
/// # Errors
/// Class `usage` for a word that is no command.
pub fn text(words: &[&str]) -> Result<String, CliError> {
    let mut whole = parser();
    whole.build();
    let mut found = &whole;
    for (at, word) in words.iter().enumerate() {
        found = found.find_subcommand(word).ok_or_else(|| unknown(&words[..at], word))?;
    }
    let line = ["coffer"].into_iter().chain(words.iter().copied()).chain(["--help"]);
    // Help comes as what the parser refuses to go on with.
    Ok(parser().try_get_matches_from(line).err().map(|help| help.render().to_string()).unwrap_or_default())
}

fn unknown(before: &[&str], word: &str) -> CliError {
    let path = [before, &[word]].concat().join(" ");
    if before.is_empty()
        && let Some(answer) = docker::word(word)
    {
        return answer;
    }
    let named = refusal::named(["coffer"].into_iter().chain(before.iter().copied()));
    refusal::called_otherwise(&named, word).unwrap_or_else(|| {
        let help = [&["coffer", "help"], before].concat().join(" ");
        CliError::new(Class::Usage, format!("there is no command {path}")).hint(format!("`{help}` lists commands"))
    })
}

/// One object for each command that runs.
fn describe(entry: &Entry, before: &str, rows: &mut Vec<Value>) {
    let parser = entry.parser();
    let command = format!("{before}{}", entry.name);
    if parser.is_hide_set() {
        return;
    }
    if !matches!(entry.does, Does::Choose(_)) {
        let aliases: Vec<_> = parser.get_visible_aliases().collect();
        let about = parser.get_about().map(ToString::to_string);
        rows.push(json!({ "command": command, "aliases": aliases, "about": about, "exits": entry.exits.word() }));
    }
    for inner in entry.does.commands() {
        describe(inner, &format!("{command} "), rows);
    }
}
