//! `coffer network connect`.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use coffer_runtime::networks::Wish;
use coffer_spec::Name;
use serde_json::json;

use crate::context::Context;
use crate::error::{self, CliError};

/// Put a box into a network, whether it runs or not. Its guest keeps the card it has: the others reach it by its address in the
/// network, and it sees them behind its gateway.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer network connect app web
  coffer network connect --ip 10.90.0.7 --alias db back postgres")]
pub struct Args {
    /// The box's address in the network [default: one that is free].
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// A further name of the box in the network; may be repeated.
    #[arg(long, value_name = "NAME")]
    alias: Vec<Name>,
    /// Name of the network.
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name or id.
    #[arg(value_name = "BOX")]
    name: String,
}

/// Puts it there.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let network = super::name(&args.network)?;
    let wish = Wish { address: args.ip, aliases: args.alias.clone() };
    let engine = context.engine()?;
    let joins = engine.connect_network(&network, &args.name, &wish);
    let place = context.runtime()?.block_on(joins).map_err(error::of)?;
    if context.json {
        let (address, aliases) = (place.address, &place.aliases);
        println!(
            "{}",
            json!({
                "network": place.name.as_str(), "box": args.name, "address": address, "mac": super::mac(address),
                "aliases": aliases,
            })
        );
    }
    Ok(ExitCode::SUCCESS)
}
