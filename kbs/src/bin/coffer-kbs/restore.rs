//! `coffer-kbs restore`: from a backup, or accepts the database that lies in a state folder although it is older than its
//! checkpoint.

use std::path::PathBuf;

use coffer_kbs::{Accepted, CheckpointElsewhere, UNCONFIRMED};
use coffer_rim::Failure;
use serde_json::json;

use crate::error::OrFail as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs restore --state ./kbs --accept-rollback\n  \
                        coffer-kbs restore --state ./kbs --from kbs.backup --accept-rollback\n  \
                        coffer-kbs restore --state ./new --from kbs.backup \\\n      --recovery-key recovery.key --accept-rollback")]
pub struct Args {
    /// State folder; a new one for an encrypted backup.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Backup to take the database from; left out: the database that lies there.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Secret half of the recovery key of an encrypted backup.
    #[arg(long, value_name = "FILE", requires = "from")]
    recovery_key: Option<PathBuf>,
    /// Yes: the checkpoint that the encrypted backup's configuration names outside of the new folder is that of no broker any
    /// more.
    #[arg(long, requires = "recovery_key")]
    replace_checkpoint: bool,
    /// Yes: whatever was done after this database was written is forgotten, deletions and revocations too.
    #[arg(long, required = true)]
    accept_rollback: bool,
}

/// Accepts it, and begins an epoch.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let event_loop = crate::event_loop::event_loop()?;
    let accepted = match &args.from {
        Some(file) => {
            let secret = args.recovery_key.as_deref().map(crate::backup::secret).transpose()?;
            let elsewhere =
                if args.replace_checkpoint { CheckpointElsewhere::IsReplaced } else { CheckpointElsewhere::Stays };
            event_loop.block_on(coffer_kbs::restore(file, &args.state, secret.as_ref(), elsewhere)).or_fail()?
        }
        None => event_loop.block_on(coffer_kbs::accept_rollback(&args.state)).or_fail()?,
    };
    let Accepted { found, seen, epoch } = accepted;
    // What is not in the backup is said below.
    let pin = coffer_kbs::pin(&args.state).ok();
    let lacks = if args.from.is_some() { coffer_kbs::lacking(&args.state) } else { Vec::new() };
    if as_json {
        let position =
            |one: coffer_kbs::Position| json!({ "epoch": one.epoch, "lines": one.lines, "changes": one.changes });
        let value = json!({
            "epoch": epoch, "found": position(found), "seen": seen.map(position), "lacks": lacks,
            "pin": pin, "next": UNCONFIRMED,
        });
        coffer_rim::println!("{value}");
        return Ok(());
    }
    coffer_rim::println!("accepted the database that ends with {found}; epoch {epoch} begins");
    match seen {
        Some(seen) if seen == found => coffer_rim::println!("the checkpoint had seen the same: nothing is forgotten"),
        Some(seen) => coffer_rim::println!("the checkpoint had seen {seen}: what lies between is forgotten"),
        None => coffer_rim::println!("there was no checkpoint of this broker: how much is forgotten is not known"),
    }
    if let Some(pin) = pin {
        coffer_rim::println!("guests know this broker by the pin {pin}: is it yours?");
    }
    for one in &lacks {
        coffer_rim::println!("not in the backup: {one}");
    }
    coffer_rim::println!("{UNCONFIRMED}");
    Ok(())
}
