//! `coffer-verifier openapi`.

use coffer_rim::Failure;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer-verifier openapi")]
pub struct Args {}

/// Prints the document that is served at /openapi.json.
#[allow(clippy::unnecessary_wraps, reason = "as every command")]
pub fn run(_: &Args) -> Result<(), Failure> {
    coffer_rim::print!("{}", coffer_verifier_service::openapi());
    Ok(())
}
