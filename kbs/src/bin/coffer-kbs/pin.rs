//! `coffer-kbs pin`.

use std::path::PathBuf;

use coffer_rim::Failure;
use serde_json::json;

use crate::error::OrFail as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-kbs pin --state ./kbs")]
pub struct Args {
    /// State folder.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Prints SHA-256 of the server's SubjectPublicKeyInfo.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let pin = coffer_kbs::pin(&args.state).or_fail()?;
    if as_json {
        let next = coffer_kbs::server_keys(&args.state, coffer_kbs::Listener::Guests).or_fail()?.next;
        coffer_rim::println!("{}", json!({ "pin": pin, "next": next }));
    } else {
        coffer_rim::println!("{pin}");
    }
    Ok(())
}
