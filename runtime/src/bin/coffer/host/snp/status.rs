//! `coffer host status`.

use std::process::ExitCode;

use coffer_runtime::host::{Need, needs};
use serde_json::json;

use crate::context::Context;
use crate::error::CliError;
use crate::host::doctor::facts;

/// Say what the firmware says of itself, and everything an SEV-SNP host needs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 SEV-SNP guests can be launched here, 4 something is missing.

Examples:
  coffer host status
  coffer --json host status")]
pub struct Args {}

/// Asks and prints.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let (facts, chip) = facts(context);
    let all = needs(&facts);
    let ok = !all.iter().any(Need::is_missing);
    if context.json {
        println!(
            "{}",
            json!({ "ok": ok, "processor": facts.processor, "firmware": facts.status, "chip_id": chip, "checks": all })
        );
    } else {
        if let Some(status) = &facts.status {
            let yes = |set: bool| if set { "yes" } else { "no" };
            println!("firmware     {}.{} build {}", status.api.0, status.api.1, status.build);
            println!("guests       {}", status.guests);
            println!("TCB          current  {}\n             reported {}", status.current, status.reported);
            println!("chip         {}", chip.as_deref().unwrap_or("not told"));
            println!(
                "reports      CHIP_ID masked: {}, VCEK masked: {}, VLEK loaded: {}",
                yes(status.mask_chip_id),
                yes(status.mask_chip_key),
                yes(status.vlek_loaded)
            );
        }
        for need in &all {
            let mark = match (need.met, need.optional) {
                (true, _) => "ok",
                (false, true) => "without",
                (false, false) => "MISSING",
            };
            println!("{mark:<7} {:<16} {}", need.what, need.found);
            if let Some(remedy) = need.remedy {
                println!("{:25}remedy: {remedy}", "");
            }
        }
    }
    Ok(ExitCode::from(if ok { 0 } else { 4 }))
}
