//! `coffer-kbs init`.

use std::{net::SocketAddr, path::PathBuf};

use coffer_rim::{Class, Classify as _, Failure, usage::ip_and_port};
use serde_json::json;

use crate::error::OrFail as _;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  coffer-kbs init --state ./kbs --listen 127.0.0.1:4480 \\\n      --admin-listen 127.0.0.1:4481"
)]
pub struct Args {
    /// New or empty folder.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where guests will connect; port 0: any.
    #[arg(long, default_value = "127.0.0.1:4480", value_name = "IP:PORT", value_parser = ip_and_port)]
    listen: SocketAddr,
    /// Where operators will connect; port 0: any.
    #[arg(long, default_value = "127.0.0.1:4481", value_name = "IP:PORT", value_parser = ip_and_port)]
    admin_listen: SocketAddr,
    /// Where to keep the end of the database outside it, best on another disk [default: DIR/checkpoint].
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

/// Makes the folder and prints the pin.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let (listen, admin_listen) = (args.listen.to_string(), args.admin_listen.to_string());
    // Named in the configuration: it must not depend on where somebody stands.
    let checkpoint = args.checkpoint.as_ref().map(std::path::absolute).transpose();
    let checkpoint = checkpoint.class_while(Class::Config, "finding the checkpoint's place")?;
    let made = coffer_kbs::init_with_checkpoint(&args.state, &listen, &admin_listen, checkpoint.as_deref());
    let made = crate::event_loop::event_loop()?.block_on(made).or_fail()?;
    if as_json {
        let value = json!({
            "state": args.state, "pin": made.pin, "admin_profile": made.profile,
            "listen": args.listen, "admin_listen": args.admin_listen,
        });
        coffer_rim::println!("{value}");
    } else {
        coffer_rim::println!("state folder {}", args.state.display());
        coffer_rim::println!("pin {}", made.pin);
        coffer_rim::println!("admin profile {} (move it to where the operator works)", made.profile.display());
    }
    Ok(())
}
