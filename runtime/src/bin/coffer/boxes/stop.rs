//! `coffer stop`.

use std::process::ExitCode;

use coffer_runtime::engine::How;
use coffer_runtime::supervisor::DEFAULT_GRACE;

use crate::cli::Context;
use crate::error::{self, CliError};
use crate::start::each;

/// Stop running boxes: their stop signal, then the power.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer stop web
  coffer stop -t 30 web db")]
pub struct Args {
    /// Seconds until a box that does not end is ended.
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", default_value_t = DEFAULT_GRACE)]
    time: u32,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Stops them; goes on after an error. A box that does not run is stopped already.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    each(context, &args.boxes, |name| runtime.block_on(engine.stop(name, How::Grace(args.time))).map_err(error::of))
}
