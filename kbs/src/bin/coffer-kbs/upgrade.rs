//! `coffer-kbs upgrade`: a database of an earlier version, accepted by name.

use std::path::PathBuf;

use coffer_kbs::Position;
use coffer_rim::Failure;
use serde_json::json;

use crate::error::OrFail as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs upgrade --state ./kbs --accept-as-newest")]
pub struct Args {
    /// State folder that an earlier version of coffer-kbs served. Keep a copy of it.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Yes: no newer database was ever served in this folder. Nothing in an old one shows that it is the newest: whatever was done
    /// after it was written, deletions and revocations too, would be forgotten.
    #[arg(long, required = true)]
    accept_as_newest: bool,
}

/// Brings it up to date.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let ends = crate::event_loop::event_loop()?.block_on(coffer_kbs::upgrade(&args.state)).or_fail()?;
    if as_json {
        let Position { epoch, lines, changes } = ends;
        coffer_rim::println!("{}", json!({ "epoch": epoch, "lines": lines, "changes": changes }));
        return Ok(());
    }
    coffer_rim::println!(
        "the database has this version's format, and ends with {ends}; from now on a checkpoint watches over it"
    );
    coffer_rim::println!("next: coffer-kbs state verify --state {}", args.state.display());
    Ok(())
}
