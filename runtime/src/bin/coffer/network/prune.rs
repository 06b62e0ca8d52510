//! `coffer network prune`.

use std::process::ExitCode;

use coffer_spec::Name;
use serde_json::json;

use crate::confirm;
use crate::context::Context;
use crate::error::{self, CliError};

/// Remove networks that no box is in.
#[derive(Debug, clap::Args)]
#[command(after_help = "Asks first, unless --force is given.

Examples:
  coffer network prune -f
  coffer network prune --filter label=scratch")]
pub struct Args {
    /// Do not ask.
    #[arg(short, long)]
    force: bool,
    /// label=KEY[=VALUE].
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Removes them and says which.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let filter = super::filter(&args.filter, "label=KEY[=VALUE]")?;
    let engine = context.engine()?;
    if !args.force {
        confirm::removal(context, "every network that no box is in")?;
    }
    let gone = engine.prune_networks(&filter).map_err(error::of)?;
    context.is_about(gone.iter().map(Name::to_string));
    if context.json {
        let names: Vec<_> = gone.iter().map(Name::as_str).collect();
        println!("{}", json!({ "networks": names }));
    } else if !gone.is_empty() {
        println!("Deleted networks:");
        for name in &gone {
            println!("{name}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
