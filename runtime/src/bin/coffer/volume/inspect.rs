//! `coffer volume inspect`.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::{self, CliError};
use crate::format::{Fields, Format};

/// Print everything known of volumes, as a JSON array.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer volume inspect db
  coffer volume inspect -f '{{.Mountpoint}} {{.DiskBytes}}' db")]
pub struct Args {
    /// Print each by a template, a volume a line; `json` is one line of JSON.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names.
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Prints what is found, and fails if something was not.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let format = args.format.as_deref().map(Format::parse).transpose()?;
    let engine = context.engine()?;
    let (mut found, mut last) = (Vec::new(), None);
    for text in &args.volumes {
        match super::name(text).and_then(|name| engine.inspect_volume(&name).map_err(error::of)) {
            Ok(listed) => found.push(super::describe(&listed)),
            Err(failure) => {
                if !context.json {
                    error::print(&failure, false);
                }
                last = Some(failure);
            }
        }
    }
    if let Some(format) = format.filter(|_| !context.json) {
        let rows: Vec<_> = found.into_iter().map(|value| Fields { value, labels: Map::new() }).collect();
        format.print(&rows, &[])?;
        return Ok(last.map_or(ExitCode::SUCCESS, |failure| context.exit(&failure)));
    }
    let mut all = Value::from(found);
    if let Some(failure) = last.as_ref().filter(|_| context.json) {
        all = json!({ "error": failure.json()["error"], "found": all });
    }
    println!("{all:#}");
    Ok(last.map_or(ExitCode::SUCCESS, |failure| context.exit(&failure)))
}
