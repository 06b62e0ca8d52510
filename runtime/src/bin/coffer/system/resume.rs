//! `coffer system resume`.

use std::process::ExitCode;

use coffer_rim::foreign;
use serde_json::Value;

use crate::context::Context;
use crate::error::{self, CliError};
use crate::several::each;

/// Start the boxes whose restart policy wants them to run, once, after a boot of this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "deploy/coffer-boxes.service does it at each boot. What runs is left alone.

Examples:
  coffer system resume")]
pub struct Args {}

/// Starts one after the other; goes on after an error.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let engine = context.engine()?;
    engine.open().map_err(error::of)?;
    let boxes = engine.to_resume().map_err(error::of)?;
    let names: Vec<String> = boxes.iter().map(|found| found.name.clone()).collect();
    let runtime = context.runtime()?;
    let resume = |name: &str| match boxes.iter().find(|found| found.name == name) {
        Some(found) => runtime.block_on(engine.resume(found)).map_err(error::of),
        None => Ok(()),
    };
    let done = |name: &str, (): &()| (format!("{}\n", foreign(name)), Value::Null);
    Ok(each(context, ("boxes", "box"), &names, resume, done))
}
