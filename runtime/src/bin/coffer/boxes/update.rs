//! `coffer update`.

use std::process::ExitCode;

use coffer_runtime::RestartPolicy;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::several::each_box;

/// Change what becomes of boxes when they end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer update --restart unless-stopped web")]
pub struct Args {
    /// no, on-failure[:COUNT], always or unless-stopped; from now on, also of a box that runs. A box made with --rm has none.
    #[arg(long, value_name = "POLICY", required = true)]
    restart: RestartPolicy,
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Changes them; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let change = |name: &str| engine.set_restart_policy(name, args.restart).map_err(error::of);
    Ok(each_box(context, &args.boxes, change))
}
