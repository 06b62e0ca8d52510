//! `coffer volume inspect`.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::inspected;

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
    let engine = context.engine()?;
    inspected::print(context, args.format.as_deref(), &args.volumes, |text| {
        let listed = super::name(text).and_then(|name| engine.inspect_volume(&name).map_err(error::of))?;
        Ok(super::describe(&listed))
    })
}
