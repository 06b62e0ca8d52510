//! `coffer version`.

use std::process::ExitCode;

use crate::context::Context;
use crate::error::CliError;

/// Print the version.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer version
  coffer --json version")]
pub struct Args {}

/// Prints the version.
pub fn run(_: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let version = env!("CARGO_PKG_VERSION");
    if context.json {
        println!("{}", json());
    } else {
        println!("coffer {version} ({})", std::env::consts::ARCH);
    }
    Ok(ExitCode::SUCCESS)
}

/// For scripts.
pub fn json() -> serde_json::Value {
    serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "arch": std::env::consts::ARCH })
}
