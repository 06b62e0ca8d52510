//! `coffer host tcb`.

use std::process::ExitCode;

use coffer_runtime::host::{Firmware as _, Minimum, minimum};
use serde_json::json;

use super::{open, refused};
use crate::context::Context;
use crate::error::CliError;
use crate::table;

/// Compare the TCB that reports of this host say with the least that the built-in policy `strict` takes.
///
/// COMMITTED_TCB, below which the platform cannot go back, is in no answer of the firmware to its host: a guest's report has
/// it (`coffer report show`).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 every part reaches its minimum, 4 it does not, or there is no SEV-SNP here.

Examples:
  coffer host tcb
  coffer --json host tcb")]
pub struct Args {}

/// Asks and compares.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (mut device, processor) = open()?;
    let status = device.status().map_err(refused)?;
    let minimum = Minimum::of(&processor);
    let levels = minimum::levels(status.current, status.reported, minimum.as_ref());
    let ok = minimum.is_some() && levels.iter().all(|level| level.enough);
    let source = minimum.as_ref().map(Minimum::source);
    if context.json {
        println!("{}", json!({ "ok": ok, "processor": processor, "checks": levels, "source": source }));
    } else {
        let rows: Vec<Vec<String>> = levels
            .iter()
            .map(|level| {
                let hex = |value: u8| format!("{value:#04x}");
                let judged = if level.enough { "" } else { "too low" };
                vec![level.part.into(), hex(level.current), hex(level.reported), hex(level.minimum), judged.into()]
            })
            .collect();
        table::print(&["PART", "CURRENT", "REPORTED", "MINIMUM", ""], &rows);
        match source {
            Some(source) => println!("minimum: {source}"),
            None => println!("no minimum is published for this model and stepping: the policy `strict` refuses it"),
        }
    }
    Ok(ExitCode::from(if ok { 0 } else { 4 }))
}
