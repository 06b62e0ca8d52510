//! `coffer id-key`: keys that sign ID blocks.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_runtime::signing_key::{KeyPurpose, SigningKey, read_public};
use coffer_verifier::P384PublicKey;
use coffer_verifier::measure::{key_digest, key_structure};

use crate::context::Context;
use crate::error::CliError;
use crate::row::Entry;

/// Make or show keys that sign launches: ID keys, and the author keys that sign those.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer id-key init --author --out author.pem
  coffer id-key init --out id.pem
  coffer run --tee-simulate --id-key id.pem --author-key author.pem \\
      --family-id acme --image-id web --guest-svn 3 IMAGE")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[command!("init": InitArgs => init), command!("show": ShowArgs => show)];

/// Make a key: FILE, mode 0600, and FILE.pub for whoever is to believe it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer id-key init --author --out author.pem
  coffer id-key init --out id.pem")]
struct InitArgs {
    /// An author key: it signs ID keys, and stays off the machines that launch.
    #[arg(long)]
    author: bool,
    /// File to write, PKCS#8 PEM; nothing is ever overwritten.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn init(args: &InitArgs, context: &Context) -> Result<ExitCode, CliError> {
    let purpose = if args.author { KeyPurpose::Author } else { KeyPurpose::Id };
    let key = SigningKey::generate()?;
    let public = key.write_pair(&args.out, purpose)?;
    let value = serde_json::json!({ "file": args.out, "public": public, "purpose": purpose.word() });
    print(key.public(), context, value);
    Ok(ExitCode::SUCCESS)
}

/// Print the digest that reports and rules name a key by.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer id-key show author.pem\n  coffer id-key show author.pem.pub --pem")]
struct ShowArgs {
    /// Private or public key, PEM.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print the public key instead.
    #[arg(long)]
    pem: bool,
}

fn show(args: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let key = read_public(&args.file)?;
    let mut value = serde_json::json!({ "file": args.file });
    if args.pem {
        value["pem"] = key.to_pem().into();
    }
    if args.pem && !context.json {
        print!("{}", key.to_pem());
    } else {
        print(&key, context, value);
    }
    Ok(ExitCode::SUCCESS)
}

fn print(key: &P384PublicKey, context: &Context, mut value: serde_json::Value) {
    let digest = key_digest(&key_structure(key));
    if context.json {
        value["key_digest"] = serde_json::json!(digest);
        value["spki_sha256"] = serde_json::json!(key.spki_digest());
        println!("{value}");
    } else {
        println!("{digest}");
    }
}
