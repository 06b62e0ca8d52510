//! `coffer owner`.

use std::process::ExitCode;

use clap::Subcommand;
use coffer_runtime::owner_access;

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};

/// The local owner's key: what lets you exec, inject and unseal in TEE boxes that list it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the key. It is never replaced.
    Init,
    /// Print its digest, as specs list it.
    Show {
        /// Print the certificate, for --owner on other machines.
        #[arg(long)]
        pem: bool,
    },
}

/// Makes or shows it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let folder = context.open_home()?.owner();
    let certificate = folder.join("cert.pem");
    let identity = match args.command {
        Command::Init => owner_access::init(&folder)?,
        Command::Show { .. } => owner_access::load(&folder)?,
    };
    if matches!(args.command, Command::Show { pem: true }) {
        print!("{}", std::fs::read_to_string(&certificate).class(Class::Config)?);
    } else if context.json {
        println!("{}", serde_json::json!({ "spki": identity.spki(), "certificate": certificate }));
    } else {
        println!("{}", identity.spki());
    }
    Ok(ExitCode::SUCCESS)
}
