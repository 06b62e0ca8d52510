//! `coffer token init|rotate|jwks|configuration`: the keys that sign, and what others learn of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use coffer_token::{KeySet, KeySetError};
use coffer_verifier::UnixTime;
use coffer_verifier::ear::{Issuer, TokenSigner as _, thumbprint};
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{Class, CliError};

/// Make a set of keys: one signs, one is the next. The file is private, and never overwritten by this.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer token init --out keys.json")]
pub struct InitArgs {
    /// File to write, mode 0600.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Makes a set.
pub fn init(args: &InitArgs, context: &Context) -> Result<ExitCode, CliError> {
    let set = KeySet::generate().map_err(|error| failed(&args.out, &error))?;
    set.write_new(&args.out).map_err(|error| failed(&args.out, &error))?;
    print(&args.out, &set, context);
    Ok(ExitCode::SUCCESS)
}

/// Sign with the next key from now on, list the last one until its tokens have ended, and make a new next one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Whoever fetched the key set before knows the key that signs now. Rotate again no sooner than it took others to fetch the set.

Examples:
  coffer token rotate keys.json")]
pub struct RotateArgs {
    /// The set, as `coffer token init` made it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Rotates.
pub fn rotate(args: &RotateArgs, context: &Context) -> Result<ExitCode, CliError> {
    let set = KeySet::rotate_in(&args.file, now()).map_err(|error| failed(&args.file, &error))?;
    print(&args.file, &set, context);
    Ok(ExitCode::SUCCESS)
}

/// Print the public keys, as they stand at /.well-known/jwks.json.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer token jwks keys.json > jwks.json")]
pub struct JwksArgs {
    /// The set, as `coffer token init` made it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Prints the public keys.
pub fn jwks(args: &JwksArgs, _: &Context) -> Result<ExitCode, CliError> {
    print!("{}", read(&args.file)?.jwks(now()).to_json());
    Ok(ExitCode::SUCCESS)
}

/// Print what stands at /.well-known/openid-configuration.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer token configuration --iss https://verifier.example")]
pub struct ConfigurationArgs {
    /// Address of the issuer, https://HOST.
    #[arg(long, value_name = "URL", value_parser = Issuer::parse)]
    iss: Issuer,
}

/// Prints the document.
pub fn configuration(args: &ConfigurationArgs, _: &Context) -> Result<ExitCode, CliError> {
    print!("{}", args.iss.configuration());
    Ok(ExitCode::SUCCESS)
}

/// The set in a file.
pub fn read(path: &Path) -> Result<KeySet, CliError> {
    KeySet::read(path).map_err(|error| failed(path, &error))
}

/// What is wrong with a set, and its file.
fn failed(path: &Path, error: &KeySetError) -> CliError {
    let (class, hint) = match error {
        KeySetError::File(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return CliError::new(Class::Config, format!("{} is there already", path.display()))
                .hint("nothing is overwritten; `coffer token rotate` changes the keys of a set");
        }
        KeySetError::Key(_) => (Class::Internal, None),
        other => (Class::Config, other.hint()),
    };
    let failure = CliError::caused(class, error).while_doing(path.display());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// The clock.
pub fn now() -> UnixTime {
    SystemTime::now().into()
}

fn print(path: &Path, set: &KeySet, context: &Context) {
    let kid = thumbprint(set.signing().public());
    if context.json {
        let listed: Vec<Value> = set.jwks(now()).keys().iter().map(|key| thumbprint(key).into()).collect();
        println!("{}", json!({ "file": path, "kid": kid, "listed": listed }));
    } else {
        println!("{kid}");
    }
}
