//! `coffer pause`.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::several::each_box;

/// Hold boxes: no virtual processor of theirs runs until `unpause`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer pause web db && coffer unpause web db")]
pub struct Args {
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Pauses them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    let pause = |name: &str| runtime.block_on(engine.pause(name)).map_err(error::of);
    Ok(each_box(context, &args.boxes, pause))
}
