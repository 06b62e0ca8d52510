//! `coffer host config`: what the firmware is told.

use std::process::ExitCode;

use coffer_runtime::host::{Change, ChangeError, Configuration, Firmware as _, Reported, change};
use serde_json::json;

use super::{open, refused};
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::row::Entry;

/// Look at and change what the SNP firmware puts into reports.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer host config show
  coffer host config set --mask-chip-id true
  coffer host config set --reported-tcb current")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[command!("show": ShowArgs => show), command!("set": SetArgs => set), command!("commit": CommitArgs => commit)];

/// Print what is set.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer host config show")]
struct ShowArgs {}

fn show(_: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (mut device, _) = open()?;
    let status = device.status().map_err(refused)?;
    print(Configuration::of(&status), "", context);
    Ok(ExitCode::SUCCESS)
}

/// Change what is named; the rest stays. A reset of the machine takes it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A new reported TCB makes the VCEK another one, and the firmware forget a VLEK: fetch the new certificates afterwards.

Examples:
  coffer host config set --reported-tcb current
  coffer host config set --reported-tcb 0x56000000001b000a
  coffer host config set --mask-chip-id true")]
#[group(required = true, multiple = true)]
struct SetArgs {
    /// TCB that reports are to say: `current`, or TCB_VERSION as one number.
    #[arg(long, value_name = "current|0xNUMBER", value_parser = reported)]
    reported_tcb: Option<Reported>,
    /// Show no CHIP_ID in reports. Relying parties that deny a chip then refuse this host.
    #[arg(long, value_name = "BOOL")]
    mask_chip_id: Option<bool>,
    /// Sign nothing with the VCEK.
    #[arg(long, value_name = "BOOL")]
    mask_chip_key: Option<bool>,
}

fn reported(text: &str) -> Result<Reported, String> {
    if text == "current" {
        return Ok(Reported::Current);
    }
    let digits = text.strip_prefix("0x").ok_or("`current`, or a number in hexadecimal that begins with 0x")?;
    u64::from_str_radix(digits, 16).map(Reported::Raw).map_err(|error| error.to_string())
}

fn set(args: &SetArgs, context: &Context) -> Result<ExitCode, CliError> {
    let (mut device, _) = open()?;
    let SetArgs { reported_tcb, mask_chip_id, mask_chip_key } = *args;
    let product = device.product();
    let found = change(&mut device, product, Change { reported: reported_tcb, mask_chip_id, mask_chip_key });
    print(found.map_err(not_changed)?, "now: ", context);
    Ok(ExitCode::SUCCESS)
}

fn not_changed(error: ChangeError) -> CliError {
    match error {
        ChangeError::Firmware(fault) => refused(fault),
        ChangeError::Tcb { .. } | ChangeError::AboveCurrent { .. } => CliError::caused(Class::Usage, &error),
        ChangeError::NotShown => {
            CliError::caused(Class::Platform, &error).hint("`coffer host config show` prints what it shows")
        }
    }
}

fn print(found: Configuration, before: &str, context: &Context) {
    if context.json {
        println!("{}", json!({ "configuration": found }));
    } else {
        let Configuration { reported, mask_chip_id, mask_chip_key } = found;
        println!("{before}reported TCB {reported}; CHIP_ID masked: {mask_chip_id}; VCEK masked: {mask_chip_key}");
    }
}

/// Make the firmware that runs the least that can ever run on this machine.
///
/// COMMITTED_TCB becomes CURRENT_TCB. There is no way back: older firmware will not load any more, on this chip, ever.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer host config commit --commit-irreversibly")]
struct CommitArgs {
    /// Yes: never again older firmware on this machine.
    #[arg(long)]
    commit_irreversibly: bool,
}

fn commit(args: &CommitArgs, context: &Context) -> Result<ExitCode, CliError> {
    if !args.commit_irreversibly {
        return Err(CliError::new(Class::Usage, "a commit cannot be undone, and nobody said that it may not be")
            .hint("--commit-irreversibly says so"));
    }
    let (mut device, _) = open()?;
    let before = device.status().map_err(refused)?;
    device.commit().map_err(refused)?;
    if context.json {
        println!("{}", json!({ "committed": before.current }));
    } else {
        println!("committed: {}", before.current);
    }
    Ok(ExitCode::SUCCESS)
}
