//! `coffer stop`.

use std::process::ExitCode;

use coffer_runtime::supervisor::control::{self, Command};
use coffer_runtime::supervisor::{DEFAULT_GRACE, of_state};
use coffer_runtime::{Home, State};

use crate::cli::Context;
use crate::error::CliError;
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
    let (home, state) = context.open_state()?;
    let runtime = context.runtime()?;
    each(context, &args.boxes, |name| runtime.block_on(stop(&home, &state, name, Command::Stop(args.time))))
}

/// Stops one box and waits for its end.
pub async fn stop(home: &Home, state: &State, name: &str, command: Command) -> Result<(), CliError> {
    let record = state.find(name).map_err(of_state)?;
    control::end(&home.box_folder(&record.id), command).await
}
