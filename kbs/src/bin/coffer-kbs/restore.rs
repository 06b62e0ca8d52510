//! `coffer-kbs restore`: accepts the database that lies in a state folder, although it is older than its checkpoint.

use std::path::PathBuf;

use coffer_kbs::Accepted;
use coffer_rim::Failure;
use serde_json::json;

use crate::error::OrFail as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs restore --state ./kbs --accept-rollback")]
pub struct Args {
    /// State folder, with the database that is to be accepted.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Yes: whatever was done after this database was written is forgotten, deletions and revocations too.
    #[arg(long, required = true)]
    accept_rollback: bool,
}

/// Accepts it, and begins an epoch.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let accepted = crate::event_loop()?.block_on(coffer_kbs::accept_rollback(&args.state)).or_fail()?;
    let Accepted { found, seen, epoch } = accepted;
    if as_json {
        let position =
            |one: coffer_kbs::Position| json!({ "epoch": one.epoch, "lines": one.lines, "changes": one.changes });
        coffer_rim::println!("{}", json!({ "epoch": epoch, "found": position(found), "seen": seen.map(position) }));
        return Ok(());
    }
    coffer_rim::println!("accepted the database that ends with {found}; epoch {epoch} begins");
    match seen {
        Some(seen) => coffer_rim::println!("the checkpoint had seen {seen}: what lies between is forgotten"),
        None => coffer_rim::println!("there was no checkpoint of this broker: how much is forgotten is not known"),
    }
    coffer_rim::println!("look through secrets, references and revocations before guests do");
    Ok(())
}
