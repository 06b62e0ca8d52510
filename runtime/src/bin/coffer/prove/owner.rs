//! `coffer owner`: the local owner's key, and lists that say who the owners are.

pub mod in_force;
mod push;
mod sign;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_ratls::Identity;
use coffer_runtime::owner_access;
use coffer_runtime::signing_key::KeyPurpose;
use coffer_spec::{Owner, OwnerList, SignedOwnerList};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::evidence::new_key;
use crate::row::Entry;

/// Make or show the local owner's key, which lets you exec, inject and unseal in TEE boxes that list it; and sign lists of owners.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer owner init
  coffer owner show --pem > owner.pem
  coffer owner keygen --out authority.pem
  coffer owner sign --key authority.pem --name prod --sequence 1 \\
      --owner owner.pem --out owners.json
  coffer owner push web owners.json --allow-simulated")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("init": InitArgs => init),
    command!("show": ShowArgs => show),
    command!("keygen": KeygenArgs => keygen),
    command!("sign": sign),
    command!("verify": verify),
    command!("push": push),
];

/// Make the key. It is never replaced; the first simulated box makes it too, where it is not there.
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

/// Make the key of an authority, which signs lists of owners: FILE, mode 0600, and FILE.pub for specs (--owner-authority).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer owner keygen --out authority.pem")]
struct KeygenArgs {
    /// File to write; nothing is ever overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn keygen(args: &KeygenArgs, context: &Context) -> Result<ExitCode, CliError> {
    new_key::make(&args.out, KeyPurpose::Owners, context)
}

/// What a list says, for programs.
fn described(list: &OwnerList, signed: &SignedOwnerList) -> serde_json::Value {
    let OwnerList { name, sequence, expires, owners } = list;
    let digest = hex::encode(signed.digest());
    serde_json::json!({ "name": name, "sequence": sequence, "expires": expires, "owners": owners, "digest": digest })
}

/// And for people.
fn print_list(list: &OwnerList, signed: &SignedOwnerList) {
    println!("name      {}", list.name);
    println!("sequence  {}", list.sequence);
    println!("expires   {}", list.expires);
    println!("digest    {}", hex::encode(signed.digest()));
    for Owner { key, may } in &list.owners {
        println!("owner     {key} {may}");
    }
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
