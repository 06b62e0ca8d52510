//! `coffer network rm`.

use std::process::ExitCode;

use coffer_rim::foreign;
use serde_json::Value;

use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::several::each;

/// Remove networks that no box is in.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "Examples:
  coffer network rm app
  coffer network rm -f old older"
)]
pub struct Args {
    /// A network that is not there is no failure.
    #[arg(short, long)]
    force: bool,
    /// Names.
    #[arg(required = true, value_name = "NETWORK")]
    networks: Vec<String>,
}

/// Removes them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let act = |text: &str| {
        let removed = super::name(text).and_then(|name| engine.remove_network(&name).map_err(error::of));
        removed.or_else(|failure| if args.force && failure.class == Class::NotFound { Ok(()) } else { Err(failure) })
    };
    let done = |text: &str, (): &()| (format!("{}\n", foreign(text)), Value::Null);
    Ok(each(context, ("networks", "network"), &args.networks, act, done))
}
