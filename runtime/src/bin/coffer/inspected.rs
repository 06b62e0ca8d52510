//! What every `inspect` prints: an array of all that is known, or a template's words for each.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::error::{self, CliError};
use crate::format::{Fields, Format};

/// Prints what `find` knows of each name, and fails if something was not found: with `--json` as an object with the failure and
/// what was found.
pub fn print(
    context: &Context,
    format: Option<&str>,
    names: &[String],
    find: impl Fn(&str) -> Result<Value, CliError>,
) -> Result<ExitCode, CliError> {
    let format = format.map(Format::parse).transpose()?;
    let (mut found, mut last) = (Vec::new(), None);
    for name in names {
        match find(name) {
            Ok(described) => found.push(described),
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
