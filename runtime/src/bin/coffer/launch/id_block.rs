//! `coffer id-block`: what an author signs, away from the machines that launch.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_runtime::boxes::files;
use coffer_runtime::id_block::{IdFacts, SignedLaunch};
use coffer_runtime::signing_key::{KeyPurpose, SigningKey};
use coffer_verifier::abi::{GuestPolicy, Measurement};

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::launch::id_flags::NameFlags;
use crate::row::Entry;

/// Sign a launch for somebody else's machine, or show what was signed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer id-block sign --measurement 9b1f… --policy 0x30000 --id-key id.pem \\
      --author-key author.pem --guest-svn 3 --out signed
  coffer id-block show signed
  coffer run --tee-simulate --id-block signed/id_block.bin \\
      --id-auth signed/id_auth.bin IMAGE")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[command!("sign": SignArgs => sign), command!("show": ShowArgs => show)];

/// Sign a measurement into an ID block.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer id-block sign --policy 0x30000 --id-key id.pem \\
      --author-key author.pem --out signed --measurement \\
      $(coffer measure --tee-simulate --json IMAGE | jq -r .measurement)")]
struct SignArgs {
    /// Launch digest, as `coffer measure` prints it.
    #[arg(long, value_name = "HEX")]
    measurement: Measurement,
    /// Guest policy of the launch, hexadecimal; `coffer run` launches with 0x30000.
    #[arg(long, value_name = "HEX", value_parser = policy)]
    policy: u64,
    /// Private ID key.
    #[arg(long, value_name = "FILE", help_heading = "ID block")]
    id_key: PathBuf,
    #[command(flatten)]
    names: NameFlags,
    /// Folder for id_block.bin and id_auth.bin, which must not be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn sign(args: &SignArgs, context: &Context) -> Result<ExitCode, CliError> {
    if args.measurement.is_zero() {
        return Err(CliError::new(Class::Usage, "a zero measurement is no launch"));
    }
    let (id, author) = (SigningKey::read(&args.id_key, KeyPurpose::Id)?, args.names.author()?);
    let signed = SignedLaunch::sign(args.measurement, args.policy, args.names.names(), &id, author.as_ref())?;
    let out = &args.out;
    std::fs::create_dir_all(out).class_while(Class::Config, format!("cannot make {}", out.display()))?;
    signed.write(out, 0o644)?;
    print(&signed.facts(), context);
    Ok(ExitCode::SUCCESS)
}

/// Check the signatures of an ID block and print what a report will show.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer id-block show signed --json")]
struct ShowArgs {
    /// Folder with id_block.bin and id_auth.bin.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

fn show(args: &ShowArgs, context: &Context) -> Result<ExitCode, CliError> {
    let folder = &args.folder;
    if folder.is_file() {
        let message = format!("{} is a file, expected the folder it lies in", folder.display());
        let hint = format!("name the folder that has {} and {}", files::ID_BLOCK, files::ID_AUTH);
        return Err(CliError::new(Class::Usage, message).hint(hint));
    }
    let signed = SignedLaunch::read(&folder.join(files::ID_BLOCK), &folder.join(files::ID_AUTH))?;
    signed.auth.verify(&signed.block).class_while(Class::NotAuthentic, "ID block")?;
    print(&signed.facts(), context);
    Ok(ExitCode::SUCCESS)
}

fn print(facts: &IdFacts, context: &Context) {
    if context.json {
        println!("{}", serde_json::json!(facts));
        return;
    }
    println!("measurement        {}", facts.measurement);
    println!("policy             {}", facts.policy);
    print_names(facts);
}

/// What the report shows beside measurement and policy.
pub fn print_names(facts: &IdFacts) {
    let author = facts.author_key_digest.map_or("none".to_owned(), |digest| digest.to_string());
    println!("id_key_digest      {}", facts.id_key_digest);
    println!("author_key_digest  {author}");
    println!("family_id          {}", facts.family_id);
    println!("image_id           {}", facts.image_id);
    println!("guest_svn          {}", facts.guest_svn);
}

fn policy(text: &str) -> Result<u64, String> {
    let raw = u64::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|_| "expected a number like 0x30000")?;
    let policy = GuestPolicy::from_raw(raw).map_err(|error| error.to_string())?;
    // A signature goes out into the world. No launch of ours has them, and no floor takes them.
    if policy.debug() || policy.migrate_ma() {
        return Err("a guest with debugging or a migration agent is its host's: leave bits 18 and 19 out".into());
    }
    Ok(policy.raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exits::Exits;

    #[test]
    fn a_file_in_place_of_its_folder_is_said_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(files::ID_BLOCK);
        std::fs::write(&file, b"").unwrap();
        let context = Context::new(false, None, Exits::Class);
        let failure = show(&ShowArgs { folder: file }, &context).unwrap_err();
        assert_eq!(failure.class, Class::Usage);
        assert!(failure.hint.unwrap().contains("name the folder"), "{}", failure.message);
    }
}
