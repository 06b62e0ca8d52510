//! `coffer network disconnect`.

use std::process::ExitCode;

use serde_json::json;

use crate::context::Context;
use crate::error::{self, CliError};

/// Take a box out of a network, whether it runs or not. In no network at all, a box whose card was made for one reaches nobody.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer network disconnect app web")]
pub struct Args {
    /// Name of the network.
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Takes it out.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let network = super::name(&args.network)?;
    let engine = context.engine()?;
    context.runtime()?.block_on(engine.disconnect_network(&network, &args.name)).map_err(error::of)?;
    if context.json {
        println!("{}", json!({ "network": network.as_str(), "box": args.name }));
    }
    Ok(ExitCode::SUCCESS)
}
