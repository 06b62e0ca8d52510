//! `coffer wait`.

use std::process::ExitCode;

use serde_json::json;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::several::each;

/// Wait until boxes do not run, and print their exit codes.
#[derive(Debug, clap::Args)]
#[command(after_help = "The exit code of this command is 0 whatever theirs are.

Examples:
  coffer wait web
  test \"$(coffer wait job)\" = 0")]
pub struct Args {
    /// Names or ids.
    #[arg(required = true, value_name = "BOX")]
    boxes: Vec<String>,
}

/// Waits for one after the other; goes on after an error.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let runtime = context.runtime()?;
    let wait = |name: &str| runtime.block_on(engine.wait(name)).map_err(error::of);
    let done = |_: &str, code: &i32| (format!("{code}\n"), json!({ "exit_code": code }));
    Ok(each(context, ("boxes", "box"), &args.boxes, wait, done))
}
