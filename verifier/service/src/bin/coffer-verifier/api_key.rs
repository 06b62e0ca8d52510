//! `coffer-verifier api-key`.

use std::io::IsTerminal as _;

use coffer_rim::{Class, Failure};
use coffer_verifier::ear::Word;
use coffer_verifier_service::{caller_name, new_key};
use serde_json::json;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The lines go behind the end of config.toml, and SIGHUP makes them count. The key \
is printed once, on standard error, and kept nowhere; what is listed is its \
digest.

Examples:
  coffer-verifier api-key --name ci")]
pub struct Args {
    /// What the log calls whoever has it.
    #[arg(long, value_name = "NAME", value_parser = caller_name)]
    name: Word,
}

/// Makes one. The lines for the configuration go to standard output, the key to standard error.
pub fn run(args: &Args, as_json: bool) -> Result<(), Failure> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::new(Class::Internal, format!("no randomness from the system: {error}")))?;
    let (key, digest) = new_key(random);
    let (name, digest) = (args.name.as_str(), hex::encode(digest));
    if as_json {
        coffer_rim::println!("{}", json!({ "name": name, "sha256": digest, "api_key": key }));
    } else {
        coffer_rim::println!("\n[[api_keys]]\nname = {}\nsha256 = \"{digest}\"", json!(name));
        // Into a file goes the key alone, for whoever reads it there to send it.
        if std::io::stderr().is_terminal() {
            coffer_rim::eprintln!("API key {key} (kept nowhere: keep it)");
        } else {
            coffer_rim::eprintln!("{key}");
        }
    }
    Ok(())
}
