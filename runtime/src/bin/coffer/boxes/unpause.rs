//! `coffer unpause`.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::several::each_box;

/// Let paused boxes go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer unpause web")]
pub struct Args {
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Lets them go on; goes on itself after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    let unpause = |name: &str| runtime.block_on(engine.unpause(name)).map_err(error::of);
    Ok(each_box(context, &args.boxes, unpause))
}
