//! `coffer rename`.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::{self, CliError};

/// Give a box another name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer rename web old-web")]
pub struct Args {
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
    /// What it is called from now on.
    #[arg(value_name = "NEW-NAME")]
    to: String,
}

/// Says nothing where it went well, as Docker does.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.rename(&args.name, &args.to).map_err(error::of)?;
    if context.json {
        println!("{}", serde_json::json!({ "box": args.name, "name": args.to }));
    }
    Ok(ExitCode::SUCCESS)
}
