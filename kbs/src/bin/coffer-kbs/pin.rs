//! `coffer-kbs pin`.

use std::path::PathBuf;

use serde_json::json;

use crate::error::Failure;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coffer-kbs pin --state ./kbs")]
pub struct Args {
    /// State folder.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Prints SHA-256 of the server's SubjectPublicKeyInfo.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let pin = coffer_kbs::pin(&args.state)?;
    crate::print(&if as_json { json!({ "pin": pin }).to_string() } else { pin.to_string() });
    Ok(())
}
