//! `coffer rm`.

use std::process::ExitCode;

use coffer_rim::foreign;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::several::each_box;

/// Remove boxes.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove",
    after_help = "Examples:
  coffer rm web
  coffer rm --force web db
  coffer rm -v job"
)]
pub struct Args {
    /// Kill a box that runs; a box that is not there is no failure.
    #[arg(short, long)]
    force: bool,
    /// Remove its volumes too that nobody named and no other box has.
    #[arg(short, long)]
    volumes: bool,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Removes them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    let mut names = args.boxes.clone();
    if args.force {
        names.retain(|name| {
            let known = !engine.find(name).is_err_and(|error| error.is_unknown());
            if !known {
                eprintln!("coffer: no such box: {}", foreign(name));
            }
            known
        });
    }
    Ok(each_box(context, &names, |name| {
        runtime.block_on(engine.remove(name, args.force, args.volumes)).map_err(error::of)
    }))
}
