//! `coffer id-key`: keys that sign ID blocks.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use coffer_runtime::signing_key::{KeyPurpose, SigningKey, read_public};
use coffer_verifier::P384PublicKey;
use coffer_verifier::measure::{key_digest, key_structure};

use crate::cli::Context;
use crate::error::CliError;

/// Make or show keys that sign launches: ID keys, and the author keys that sign those.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer id-key init --author --out author.pem
  coffer id-key init --out id.pem
  coffer run --tee-simulate --id-key id.pem --author-key author.pem --family-id acme --image-id web --guest-svn 3 IMAGE")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a private key. Nothing is ever overwritten.
    #[command(after_help = "Example:\n  coffer id-key init --author --out author.pem")]
    Init {
        /// An author key: it signs ID keys, and stays off the machines that launch.
        #[arg(long)]
        author: bool,
        /// File to write, PKCS#8 PEM, mode 0600.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Print the digest that reports and rules name a key by.
    #[command(after_help = "Example:\n  coffer id-key show author.pem --pem > author.pub")]
    Show {
        /// Private or public key, PEM.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Print the public key instead.
        #[arg(long)]
        pem: bool,
    },
}

/// Makes or shows one.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    match &args.command {
        Command::Init { author, out } => {
            let purpose = if *author { KeyPurpose::Author } else { KeyPurpose::Id };
            let key = SigningKey::generate()?;
            key.write_new(out, purpose)?;
            print(key.public(), context, serde_json::json!({ "file": out, "purpose": purpose.word() }));
        }
        Command::Show { file, pem } => {
            let key = read_public(file)?;
            if *pem {
                print!("{}", key.to_pem());
            } else {
                print(&key, context, serde_json::json!({ "file": file }));
            }
        }
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
