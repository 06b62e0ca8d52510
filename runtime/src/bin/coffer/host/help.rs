//! `coffer help`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::commands;
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::row::{Does, Entry};
use crate::{cli, docker};

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
    let mut parser = cli::parser();
    parser.build();
    let mut found = &mut parser;
    let mut table = Vec::new();
    for (at, word) in args.words.iter().enumerate() {
        let path = args.words[..=at].join(" ");
        found = found.find_subcommand_mut(word).ok_or_else(|| unknown(&path, at))?;
        table.push(found.get_name().to_owned());
    }
    if context.json {
        let mut rows = Vec::new();
        for entry in commands::all() {
            describe(entry, "", &mut rows);
        }
        let wanted = table.join(" ");
        let under = |name: &str| wanted.is_empty() || name == wanted || name.starts_with(&format!("{wanted} "));
        rows.retain(|row| row["command"].as_str().is_some_and(under));
        println!("{}", Value::from(rows));
    } else {
        print!("{}", found.render_long_help());
    }
    Ok(ExitCode::SUCCESS)
}

fn unknown(path: &str, depth: usize) -> CliError {
    let word = if depth == 0 { docker::word(path) } else { None };
    word.unwrap_or_else(|| {
        CliError::new(Class::Usage, format!("there is no command {path}")).hint("`coffer help` lists commands")
    })
}

/// One object for each command that runs.
fn describe(entry: &Entry, before: &str, rows: &mut Vec<Value>) {
    let parser = entry.parser();
    let command = format!("{before}{}", entry.name);
    match entry.does {
        _ if parser.is_hide_set() => {}
        Does::Choose(commands) => {
            for inner in commands {
                describe(inner, &format!("{command} "), rows);
            }
        }
        Does::Run(_) => {
            let aliases: Vec<_> = parser.get_visible_aliases().collect();
            let about = parser.get_about().map(ToString::to_string);
            rows.push(json!({ "command": command, "aliases": aliases, "about": about, "exits": entry.exits.word() }));
        }
    }
}
