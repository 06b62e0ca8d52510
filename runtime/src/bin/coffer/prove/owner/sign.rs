//! `coffer owner sign`.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_runtime::owner_list;
use coffer_runtime::signing_key::{KeyPurpose, SigningKey};
use coffer_spec::{Name, OwnerList, SignedOwnerList};
use coffer_verifier::UnixTime;
use serde_json::json;

use crate::context::Context;
use crate::error::{Class, CliError};
use crate::launch::measure_manifest::Expiry;
use crate::prove::evidence_files::put;
use crate::prove::owner::{described, print_list};

/// Sign a list of owners, for guests whose spec has this key and name (--owner-authority).
///
/// Where the spec says `kept`, put it there with `coffer kbs secret put`: it stands in place of the spec's owners. Else bring it with
/// `coffer owner push`: it adds to them, until the guest ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 signed, 2 usage, 3 a file.

Examples:
  coffer owner sign --key authority.pem --name prod --sequence 2 \\
      --expires 30d --owner alice.pem --owner bob.pem=logs,top \\
      --out owners.json
  coffer owner sign --key authority.pem --name prod --sequence 3 \\
      --nobody --out nobody.json")]
pub struct Args {
    /// Private key of the authority, from `coffer owner keygen`.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Name of the list, as specs have it.
    #[arg(long, value_name = "NAME")]
    name: Name,
    /// Number that grows with each list of the name; an older one is refused where the key broker keeps count, and another list of the same one by whoever has the first.
    #[arg(long, value_name = "N")]
    sequence: u64,
    /// From when on it counts no more: a time like 2027-01-01T00:00:00Z, or 90d, 12h, 30m from now [default: 90d].
    #[arg(long, value_name = "WHEN", value_parser = Expiry::parse)]
    expires: Option<Expiry>,
    /// An owner: PUBLIC-KEY.pem[=exec,inject,unseal,logs,cp,top,attach] [default: everything]; repeatable.
    #[arg(long, value_name = "PEM[=MAY,..]", required_unless_present = "nobody", conflicts_with = "nobody")]
    owner: Vec<String>,
    /// A list of nobody.
    #[arg(long)]
    nobody: bool,
    /// File to write, whole or not at all; one that is there is not replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Signs and writes.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let key = SigningKey::read(&args.key, KeyPurpose::Owners)?;
    let now = UnixTime::from(std::time::SystemTime::now());
    let list = OwnerList {
        name: args.name.clone(),
        sequence: args.sequence,
        expires: args.expires.unwrap_or(Expiry::After(90 * 86_400)).counted_from(now)?,
        owners: args.owner.iter().map(|text| owner_list::parse(text)).collect::<Result<_, _>>()?,
    };
    list.check().map_err(|error| CliError::caused(Class::Usage, &error))?;
    let envelope = SignedOwnerList::of(&list);
    let signature = key.sign(&envelope.signing_input())?;
    let envelope = envelope.with_signature(key.public(), signature);
    // Its sequence may have been given out with the list that is there.
    put(&args.out, format!("{}\n", envelope.to_json()).as_bytes())?;
    if context.json {
        let mut value = described(&list, &envelope);
        (value["file"], value["key"]) = (json!(args.out), json!(key.public().spki_digest()));
        println!("{value}");
    } else {
        print_list(&list, &envelope);
    }
    Ok(ExitCode::SUCCESS)
}
