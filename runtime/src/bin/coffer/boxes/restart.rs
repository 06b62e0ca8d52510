//! `coffer restart`.

use std::process::ExitCode;

use coffer_runtime::supervisor::DEFAULT_GRACE;
use coffer_runtime::supervisor::control::Command;

use crate::cli::Context;
use crate::error::CliError;
use crate::live::Stay;
use crate::start::{each, start};
use crate::stop::stop;

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
    let (home, state) = context.open_state()?;
    let runtime = context.runtime()?;
    each(context, &args.boxes, |name| {
        runtime.block_on(async {
            stop(&home, &state, name, Command::Stop(args.time)).await?;
            start(context, &home, &state, name, Stay::UntilRunning).await.map(drop)
        })
    })
}
