//! `coffer ps`.

use std::process::ExitCode;

use coffer_runtime::boxes::unix_ms;
use coffer_runtime::engine::Filter;
use coffer_runtime::publish::Publish;
use coffer_runtime::{BoxRecord, BoxState};
use coffer_spec::Tee;
use serde_json::json;

use crate::boxes::port;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::table;

/// List boxes.
#[derive(Debug, clap::Args)]
#[command(visible_aliases = ["ls", "list"], after_help = "Examples:
  coffer ps --all
  coffer ps -aq --filter status=exited
  coffer --json ps")]
pub struct Args {
    /// Also boxes that do not run.
    #[arg(short, long)]
    all: bool,
    /// Ids only.
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids, commands and reasons.
    #[arg(long)]
    no_trunc: bool,
    /// name=TEXT, id=PREFIX or status=created|running|paused|exited|dead|removed; values of one key are alternatives. Removed are
    /// boxes of --rm that did not come to run their workload.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Lists them, newest first.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let mut filter = filter(&args.filter)?;
    if !args.all && filter.states.is_empty() {
        filter.states.extend([BoxState::Running, BoxState::Paused]);
    }
    let engine = context.engine()?;
    let boxes = engine.list(&filter).map_err(error::of)?;
    // What cannot be read of one box keeps nobody from seeing the others.
    let ports = |found: &BoxRecord| engine.ports_of(found).ok();
    if context.json {
        println!(
            "{}",
            serde_json::Value::from(
                boxes.iter().map(|found| summary(found, ports(found).as_deref())).collect::<Vec<_>>()
            )
        );
    } else if args.quiet {
        for found in &boxes {
            println!("{}", if args.no_trunc { found.id.as_str() } else { found.id.short() });
        }
    } else {
        let rows: Vec<_> = boxes.iter().map(|found| row(found, ports(found).as_deref(), args.no_trunc)).collect();
        table::print(&["BOX ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "TEE", "PORTS", "NAMES"], &rows);
    }
    Ok(ExitCode::SUCCESS)
}

fn filter(texts: &[String]) -> Result<Filter, CliError> {
    let mut filter = Filter::default();
    for text in texts {
        let invalid = || {
            CliError::new(Class::Usage, format!("invalid filter '{text}'"))
                .hint("filters are name=TEXT, id=PREFIX and status=created|running|paused|exited|dead|removed")
        };
        match text.split_once('=').ok_or_else(invalid)? {
            (_, "") => return Err(invalid()),
            ("name", value) => filter.names.push(value.into()),
            ("id", value) => filter.ids.push(value.into()),
            ("status", value) => filter.states.push(BoxState::from_word(value).ok_or_else(invalid)?),
            _ => return Err(invalid()),
        }
    }
    Ok(filter)
}

fn row(found: &BoxRecord, ports: Option<&[Publish]>, whole: bool) -> Vec<String> {
    let mut command = found.options.command.join(" ");
    let mut status = status(found);
    if !whole {
        (command, status) = (cut(&command, 20), cut(&status, 80));
    }
    let id = if whole { found.id.as_str() } else { found.id.short() };
    let created = format!("{} ago", table::span(unix_ms() - found.created));
    // Image, command and error are foreign text; the table escapes its cells.
    vec![
        id.into(),
        found.image.clone(),
        format!("\"{command}\""),
        created,
        status,
        tee_word(found.options.tee).into(),
        ports.map_or("?".to_owned(), |ports| ports.iter().map(Publish::to_string).collect::<Vec<_>>().join(", ")),
        found.name.clone(),
    ]
}

/// At most so many characters; `…` stands for the rest.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    text.chars().take(most - 1).collect::<String>() + "…"
}

/// `Up 3 seconds`, `Up 3 seconds (Paused)`, `Exited (0) 5 minutes ago`.
pub fn status(found: &BoxRecord) -> String {
    let since = |moment: Option<i64>| table::span(unix_ms() - moment.unwrap_or(found.created));
    match found.state {
        BoxState::Created => "Created".into(),
        BoxState::Running => format!("Up {}", since(found.started)),
        BoxState::Paused => format!("Up {} (Paused)", since(found.started)),
        BoxState::Dead => "Dead".into(),
        BoxState::Exited => format!("Exited {}", how_it_ended(found)),
        BoxState::Removed => format!("Removed {}", how_it_ended(found)),
    }
}

/// `(0) 5 minutes ago`; behind it why, a key broker's refusal by its word and number first.
fn how_it_ended(found: &BoxRecord) -> String {
    let since = table::span(unix_ms() - found.finished.unwrap_or(found.created));
    let refusal = found.reason.as_ref().and_then(|reason| {
        let id = reason.denial_id.as_ref()?;
        Some(format!("{} {id}: ", reason.code))
    });
    let refusal = refusal.unwrap_or_default();
    let why = found.error.as_ref().map(|error| format!(" ({refusal}{error})")).unwrap_or_default();
    format!("({}) {since} ago{why}", found.exit_code.unwrap_or(0))
}

/// The word for a secure processor.
pub fn tee_word(tee: Tee) -> &'static str {
    match tee {
        Tee::Snp => "snp",
        Tee::Simulated => "simulated",
        Tee::None => "none",
    }
}

fn summary(found: &BoxRecord, ports: Option<&[Publish]>) -> serde_json::Value {
    json!({
        "id": found.id, "name": found.name, "image": found.image, "command": found.options.command,
        "state": found.state, "status": status(found), "exit_code": found.exit_code, "error": found.error,
        "reason": found.reason,
        "tee": tee_word(found.options.tee), "created": table::rfc3339(found.created),
        "ports": ports.map(|ports| ports.iter().map(port::row).collect::<Vec<_>>()),
        "supervisor_pid": found.supervisor_pid, "vmm_pid": found.vmm_pid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_cut_by_characters_and_says_so() {
        assert_eq!([cut("Größe", 5), cut("Größen", 5), cut("", 1)], ["Größe", "Größ…", ""]);
    }

    #[test]
    fn unknown_filters_and_states_are_refused() {
        for bad in ["bogus=1", "status=nosuch", "name", "name=", "id=", "status="] {
            assert_eq!(filter(&[bad.into()]).err().unwrap().class, Class::Usage, "{bad}");
        }
        let both = filter(&["status=exited".into(), "status=created".into(), "name=a".into()]).unwrap();
        assert_eq!((both.states.len(), both.names.as_slice(), both.ids.len()), (2, &["a".to_owned()][..], 0));
    }
}
