//! `coffer-kbs init`.

use std::{net::SocketAddr, path::PathBuf};

use serde_json::json;

use crate::error::Failure;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  coffer-kbs init --state ./kbs --listen 127.0.0.1:4480 --admin-listen 127.0.0.1:4481"
)]
pub struct Args {
    /// New or empty folder.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Where guests will connect; port 0: any.
    #[arg(long, default_value = "127.0.0.1:4480", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Where operators will connect; port 0: any.
    #[arg(long, default_value = "127.0.0.1:4481", value_name = "IP:PORT")]
    admin_listen: SocketAddr,
}

/// Makes the folder and prints the pin.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let made = coffer_kbs::init(&args.state, &args.listen.to_string(), &args.admin_listen.to_string())?;
    if as_json {
        let value = json!({
            "state": args.state, "pin": made.pin, "admin_profile": made.profile,
            "listen": args.listen, "admin_listen": args.admin_listen,
        });
        crate::print(&value.to_string());
    } else {
        crate::print(&format!("state folder {}", args.state.display()));
        crate::print(&format!("pin {}", made.pin));
        crate::print(&format!("admin profile {} (move it to where the operator works)", made.profile.display()));
    }
    Ok(())
}
