//! `coffer owner verify`.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_rim::input;
use coffer_runtime::signing_key::read_public;
use coffer_spec::SignedOwnerList;
use coffer_verifier::UnixTime;
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::prove::owner::{described, print_list};

/// Check signature and expiry of a list of owners, and say what it says. Exits 3 for a malformed one, 5 for one that does not count.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer owner verify owners.json --key authority.pem.pub")]
pub struct Args {
    /// Signed list.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Public key of the authority, PEM.
    #[arg(long, value_name = "PEM")]
    key: PathBuf,
    /// Decide as of this time.
    #[arg(long, value_name = "RFC3339", value_parser = UnixTime::parse)]
    at: Option<UnixTime>,
}

/// Checks and prints.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let now = args.at.unwrap_or_else(|| std::time::SystemTime::now().into());
    let file = args.file.display();
    let bytes = input::read(&args.file, input::DOCUMENT).class_while(Class::Config, format!("cannot read {file}"))?;
    let key = read_public(&args.key)?;
    let read = SignedOwnerList::parse(&bytes).and_then(|signed| {
        let list = signed.by(&key)?;
        list.current(now)?;
        Ok((list, signed))
    });
    let (list, signed) = read.map_err(|error| {
        // As `owner push` has it, from the guest.
        let class = if error.is_unauthentic() { Class::NotAuthentic } else { Class::Config };
        CliError::caused(class, &error).while_doing(file.to_string())
    })?;
    if context.json {
        let mut value = described(&list, &signed);
        (value["verdict"], value["key"]) = (json!("valid"), json!(key.spki_digest()));
        println!("{value}");
    } else {
        println!("valid");
        print_list(&list, &signed);
    }
    Ok(ExitCode::SUCCESS)
}
