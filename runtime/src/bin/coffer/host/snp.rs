//! `coffer host`: this machine as a host of SEV-SNP guests. What its firmware says, its certificates, its configuration.
//!
//! All of it is the host's own word. What a relying party believes stands in a signed report.

mod certificates;
mod config;
mod status;
mod tcb;

use std::io::ErrorKind;

use coffer_runtime::host::{Device, Facts, FirmwareFault, needs};
use coffer_verifier::abi::ProductLine;

use crate::error::{Class, CliError};
use crate::row::Entry;

/// Look at and set up this machine as a host of SEV-SNP guests.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 4 where this machine has no SEV-SNP that works; the message says what is missing.

Examples:
  coffer host status
  coffer host tcb
  coffer host certificates show")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[command!("status": status), command!("tcb": tcb), noun!("certificates": certificates), noun!("config": config)];

/// The firmware of this machine, and the line of its processor.
fn open() -> Result<(Device, ProductLine, Facts), CliError> {
    let facts = Facts::gather();
    let device = Device::open(&facts.processor).map_err(|fault| absent(&facts, fault))?;
    let product = facts.processor.product.ok_or_else(|| CliError::new(Class::Platform, "no product line"))?;
    Ok((device, product, facts))
}

/// What the firmware did not do.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn refused(fault: FirmwareFault) -> CliError {
    let class = match &fault {
        FirmwareFault::Hashstick { .. } => Class::Config,
        _ => Class::Platform,
    };
    CliError::caused(class, &fault).hint(fault.hint())
}

/// Without the device: the first thing that is missing is why.
fn absent(facts: &Facts, fault: FirmwareFault) -> CliError {
    let closed = matches!(&fault, FirmwareFault::Open(error) if error.kind() == ErrorKind::PermissionDenied);
    let failure = refused(fault);
    match needs(facts).into_iter().find(|need| !need.met) {
        Some(need) if !closed => {
            CliError::new(Class::Platform, format!("{}; {}: {}", failure.message, need.what, need.found))
                .hint(need.remedy.unwrap_or_default())
        }
        _ => failure,
    }
}
