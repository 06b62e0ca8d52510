//! `coffer owner push`.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_rim::{foreign, input};
use coffer_spec::SignedOwnerList;
use serde_json::json;

use crate::context::Context;
use crate::error::{self, Class, Classify as _, CliError};
use crate::prove::guest::Trust;

/// Bring a running guest a list of owners that the authority of its spec signed, as one of its owners.
///
/// It adds to the spec's owners, until the guest ends or a later list comes: without a key broker there is nobody who remembers, and an
/// older list may be brought after a restart. Where the spec says `kept`, put the list there instead (`coffer kbs secret put`). Exits 3 for
/// a list that is malformed or not for this guest, 5 for one that does not count.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer owner push web owners.json")]
pub struct Args {
    #[command(flatten)]
    trust: Trust,
    /// Name or id; or coffer://HOST:PORT of a guest elsewhere, with --reference.
    #[arg(value_name = "BOX")]
    name: String,
    /// Signed list, from `coffer owner sign`.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Brings it.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let file = args.file.display();
    let bytes = input::read(&args.file, input::DOCUMENT).class_while(Class::Config, format!("cannot read {file}"))?;
    // What no guest could take is said before one is asked.
    SignedOwnerList::parse(&bytes)
        .map_err(|error| CliError::caused(Class::Config, &error).while_doing(file.to_string()))?;
    let engine = context.engine()?;
    let trust = args.trust.read()?;
    let sequence = context.runtime()?.block_on(engine.put_owners(&args.name, bytes, &trust)).map_err(error::of)?;
    if context.json {
        println!("{}", json!({ "box": args.name, "sequence": sequence, "are": "spec-and-list" }));
    } else {
        // Where a broker keeps the list the guest takes none that is brought.
        let name = foreign(&args.name);
        println!(
            "owners of {name}: list {sequence}, and those of the spec: without a key broker that keeps it, a list only adds"
        );
    }
    Ok(ExitCode::SUCCESS)
}
