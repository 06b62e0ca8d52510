//! `coffer restart`.

use std::process::ExitCode;

use crate::boxes::start::let_go;
use crate::boxes::to_stop::ToStop;
use crate::boxes::unproven;
use crate::context::Context;
use crate::error::{self, CliError};
use crate::several::each_box;

/// Stop boxes and start them again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer restart -t 5 web")]
pub struct Args {
    #[command(flatten)]
    what: ToStop,
}

/// Restarts them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let how = args.what.how()?;
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    Ok(each_box(context, &args.what.boxes, |name| {
        runtime.block_on(async {
            unproven::say_of_restart(&engine, name);
            let started = engine.restart(name, how).await.map_err(error::of)?;
            let_go(&engine, started).await
        })
    }))
}
