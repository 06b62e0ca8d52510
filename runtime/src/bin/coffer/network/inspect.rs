//! `coffer network inspect`.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::inspected;

/// Print everything known of networks, as a JSON array.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer network inspect app
  coffer network inspect -f '{{json .Containers}}' app")]
pub struct Args {
    /// Print each by a template, a network a line; `json` is one line of JSON.
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Names.
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Prints what is found, and fails if something was not.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    inspected::print(context, args.format.as_deref(), &args.networks, |text| {
        let listed = super::name(text).and_then(|name| engine.inspect_network(&name).map_err(error::of))?;
        Ok(super::describe(&listed))
    })
}
