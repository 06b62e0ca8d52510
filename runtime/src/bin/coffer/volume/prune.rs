//! `coffer volume prune`.

use std::process::ExitCode;

use coffer_spec::Name;
use serde_json::json;

use crate::confirm;
use crate::context::Context;
use crate::error::{self, CliError};
use crate::table;

/// Remove volumes that no box has and nobody named.
#[derive(Debug, clap::Args)]
#[command(after_help = "Asks first, unless --force is given.

Examples:
  coffer volume prune -f
  coffer volume prune --all --filter label=scratch")]
pub struct Args {
    /// Named ones too.
    #[arg(short, long)]
    all: bool,
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// label=KEY[=VALUE].
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Removes them and says what they took.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let filter = super::filter(&args.filter, "label=KEY[=VALUE]")?;
    let engine = context.engine()?;
    let what = if args.all { "every volume that no box has" } else { "every volume that no box has and nobody named" };
    if !args.force {
        confirm::removal(context, what)?;
    }
    let pruned = engine.prune_volumes(&filter, args.all).map_err(error::of)?;
    context.is_about(pruned.names.iter().map(Name::to_string));
    if context.json {
        let names: Vec<_> = pruned.names.iter().map(Name::as_str).collect();
        println!("{}", json!({ "volumes": names, "bytes": pruned.bytes }));
        return Ok(ExitCode::SUCCESS);
    }
    if !pruned.names.is_empty() {
        println!("Deleted volumes:");
        for name in &pruned.names {
            println!("{name}");
        }
        println!();
    }
    println!("Total reclaimed space: {}", table::size(pruned.bytes));
    Ok(ExitCode::SUCCESS)
}
