//! `coffer restart`.

use std::process::ExitCode;

use coffer_runtime::engine::How;
use coffer_runtime::supervisor::DEFAULT_GRACE;

use crate::cli::Context;
use crate::error::{self, CliError};
use crate::start::{each, let_go};

/// Stop boxes and start them again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer restart -t 5 web")]
pub struct Args {
    /// Seconds until a box that does not end is ended.
    #[arg(short, long, visible_alias = "timeout", value_name = "SECONDS", default_value_t = DEFAULT_GRACE)]
    time: u32,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Restarts them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    each(context, &args.boxes, |name| {
        runtime.block_on(async {
            let started = engine.restart(name, How::Grace(args.time)).await.map_err(error::of)?;
            let_go(&engine, started).await
        })
    })
}
