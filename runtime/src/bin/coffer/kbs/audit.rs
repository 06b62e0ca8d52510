//! `coffer kbs audit`.

use std::process::ExitCode;

use super::broker::{Broker, not_found};
use crate::error::CliError;

/// Print audit lines, one JSON object each, oldest first; with --json one array of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs audit --from 10 --limit 5
  coffer kbs audit --newest --limit 20 --tenant acme
  coffer kbs audit --id 86fb0b8a2fdb7edb")]
pub struct Args {
    /// First sequence number.
    #[arg(long, default_value_t = 0, value_name = "N")]
    from: u64,
    /// Number of lines.
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Lines of this tenant alone.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The line with this id alone: a refusal has one.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Newest first.
    #[arg(long)]
    newest: bool,
}

/// Prints them as the broker wrote them.
pub fn run(args: &Args, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (tenant, whole) = (args.tenant.as_deref(), args.newest || args.id.is_some());
    // The broker gives them from the first on: what is wanted from the end is looked for here.
    let limit = if whole { u32::MAX } else { args.limit };
    let mut lines = broker.ask(async |client| client.audit_of(tenant, args.from, limit).await)?;
    if let Some(id) = &args.id {
        // Its own, or one of those a line was summed of.
        let id = serde_json::json!(id).to_string();
        lines.retain(|line| line.contains(&id));
        if lines.is_empty() {
            return Err(not_found("there is no line with this id".into(), "audit"));
        }
    }
    if args.newest {
        lines.reverse();
    }
    lines.truncate(args.limit as usize);
    if broker.json() {
        println!("{}", one_document(&lines));
        return Ok(ExitCode::SUCCESS);
    }
    for line in lines {
        // A line is JSON: what acts on a terminal is escaped as JSON has it, so that the line stays one.
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// An array of the lines as the broker wrote them, so that what is computed over their bytes still holds.
fn one_document(lines: &[String]) -> String {
    let whole = |line: &String| match serde_json::from_str::<serde::de::IgnoredAny>(line) {
        Ok(_) => line.clone(),
        Err(_) => serde_json::Value::from(line.as_str()).to_string(),
    };
    format!("[{}]", lines.iter().map(whole).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_one_document_and_keep_their_bytes() {
        let lines = ["{\"seq\":1, \"b\":0}".to_owned(), "no JSON \"".to_owned()];
        let text = one_document(&lines);
        assert!(text.contains(&lines[0]), "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&parsed[0]["seq"], &parsed[1]), (&1.into(), &lines[1].as_str().into()));
        assert_eq!(one_document(&[]), "[]");
    }
}
