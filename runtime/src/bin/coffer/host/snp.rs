//! `coffer host`: this machine as a host of SEV-SNP guests. What its firmware says, its certificates, its configuration.
//!
//! All of it is the host's own word. What a relying party believes stands in a signed report.

mod certificates;
mod config;
mod status;
mod tcb;

use std::io::ErrorKind;

use coffer_runtime::host::{Device, Facts, FirmwareFault, Need, Processor, needs};

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

/// The firmware of this machine, and the processor it belongs to.
fn open() -> Result<(Device, Processor), CliError> {
    let facts = Facts::gather();
    match Device::open(&facts.processor) {
        Ok(device) => Ok((device, facts.processor)),
        Err(fault) => Err(absent(&facts, fault)),
    }
}

/// What the firmware did not do.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
fn refused(fault: FirmwareFault) -> CliError {
    let class = match &fault {
        FirmwareFault::Hashstick { .. } => Class::Config,
        _ => Class::Platform,
    };
    CliError::caused(class, &fault).hint(match &fault {
        FirmwareFault::Open(error) if error.kind() == ErrorKind::PermissionDenied => {
            "the firmware's commands are root's, or those of the group that /dev/sev belongs to"
        }
        FirmwareFault::Open(_) | FirmwareFault::Processor { .. } => "`coffer host status` says what is missing here",
        FirmwareFault::Refused { state: true, .. } => {
            "the firmware was not initialised for SNP: `coffer host status` says what is missing"
        }
        FirmwareFault::Refused { .. } => "the kernel's log has more (`dmesg | grep -i -e sev -e ccp`)",
        FirmwareFault::Answer { .. } => "a newer version may know this firmware",
        FirmwareFault::Hashstick { .. } => "give the file the cloud provider got from AMD for this very chip",
    })
}

/// Without the device: the first thing that is missing is why.
fn absent(facts: &Facts, fault: FirmwareFault) -> CliError {
    let closed = matches!(&fault, FirmwareFault::Open(error) if error.kind() == ErrorKind::PermissionDenied);
    let failure = refused(fault);
    match needs(facts).into_iter().find(Need::is_missing) {
        Some(need) if !closed => {
            CliError::new(Class::Platform, format!("{}; {}: {}", failure.message, need.what, need.found))
                .hint(need.remedy.unwrap_or_default())
        }
        _ => failure,
    }
}
