//! `coffer volume rm`.

use std::process::ExitCode;

use coffer_rim::foreign;
use serde_json::Value;

use crate::context::Context;
use crate::error::{self, Class, CliError};
use crate::several::each;

/// Remove volumes that no box has, with all that is in them.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "Examples:
  coffer volume rm db
  coffer volume rm -f old older"
)]
pub struct Args {
    /// A volume that is not there is no failure.
    #[arg(short, long)]
    force: bool,
    /// Names.
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Removes them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    let act = |text: &str| {
        let removed = super::name(text).and_then(|name| engine.remove_volume(&name).map_err(error::of));
        removed.or_else(|failure| if args.force && failure.class == Class::NotFound { Ok(()) } else { Err(failure) })
    };
    let done = |text: &str, (): &()| (format!("{}\n", foreign(text)), Value::Null);
    Ok(each(context, ("volumes", "volume"), &args.volumes, act, done))
}
