//! `coffer owner`.

use std::path::Path;
use std::process::ExitCode;

use coffer_ratls::Identity;
use coffer_runtime::owner_access;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::row::Entry;

/// Make or show the local owner's key: what lets you exec, inject and unseal in TEE boxes that list it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer owner init
  coffer owner show --pem > owner.pem")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[command!("init": InitArgs => init), command!("show": ShowArgs => show)];

/// Make the key. It is never replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer owner init")]
struct InitArgs {}

fn init(_: &InitArgs, context: &Context) -> Result<ExitCode, CliError> {
    let folder = context.open_home()?.owner();
    print(&owner_access::init(&folder)?, &folder.join("cert.pem"), None, context);
    Ok(ExitCode::SUCCESS)
}

/// Print its digest, as specs list it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer owner show --pem > owner.pem")]
struct ShowArgs {
    /// Print the certificate, for --owner on other machines.
    #[arg(long)]
    pem: bool,
}

fn show(args: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let folder = context.open_home()?.owner();
    let certificate = folder.join("cert.pem");
    let identity = owner_access::load(&folder)?;
    let pem = args.pem.then(|| std::fs::read_to_string(&certificate).class(Class::Config)).transpose()?;
    match pem {
        Some(pem) if !context.json => print!("{pem}"),
        pem => print(&identity, &certificate, pem, context),
    }
    Ok(ExitCode::SUCCESS)
}

fn print(identity: &Identity, certificate: &Path, pem: Option<String>, context: &Context) {
    if context.json {
        let mut value = serde_json::json!({ "spki": identity.spki(), "certificate": certificate });
        if let Some(pem) = pem {
            value["pem"] = pem.into();
        }
        println!("{value}");
    } else {
        println!("{}", identity.spki());
    }
}
