//! `coffer prune`.

use std::process::ExitCode;

use coffer_runtime::boxes::unix_ms;
use coffer_runtime::engine::Filter;
use serde_json::json;

use crate::boxes::filters;
use crate::confirm;
use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::table;

/// Remove every box that does not run.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Asks first, unless --force is given. What was left of a box whose creation was killed goes too. Images stay: `coffer rmi` removes them.

Examples:
  coffer prune -f
  coffer prune --filter until=24h --filter label=job"
)]
pub struct Args {
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// label=KEY[=VALUE], or until=TIME: made before then, a moment (RFC 3339) or a time ago (10m, 24h).
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Removes them and says what they took.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (mut filter, mut until) = (Filter::default(), None);
    for text in &args.filter {
        match text.split_once('=') {
            Some(("label", value)) if !value.is_empty() => filter.labels.push(filters::label(value)),
            Some(("until", value)) => until = Some(filters::moment(value, unix_ms())?),
            _ => {
                let message = format!("invalid filter '{text}'");
                return Err(CliError::new(Class::Usage, message).hint("filters are label=KEY[=VALUE] and until=TIME"));
            }
        }
    }
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    if !args.force {
        confirm::removal(context, "every box that does not run")?;
    }
    let boxes = engine.prunable(&filter, until).map_err(error::of)?;
    let pruned = context.runtime()?.block_on(engine.prune(&boxes)).map_err(error::of)?;
    if context.json {
        println!("{}", json!({ "boxes": pruned.boxes, "bytes": pruned.bytes }));
        return Ok(ExitCode::SUCCESS);
    }
    if !pruned.boxes.is_empty() {
        println!("Deleted boxes:");
        for id in &pruned.boxes {
            println!("{id}");
        }
        println!();
    }
    println!("Total reclaimed space: {}", table::size(pruned.bytes));
    Ok(ExitCode::SUCCESS)
}
