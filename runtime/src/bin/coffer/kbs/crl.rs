//! `coffer kbs crl`: revocation lists for evidence that brings none, or an older one.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_kbs_client::{CrlInfo, SeenCrl};
use coffer_verifier::abi::SpkiDigest;
use serde_json::{Value, json};

use super::broker::{Broker, not_found, read};
use super::{admin, rfc3339};
use crate::error::CliError;
use crate::row::Entry;

/// Bring revocation lists to the broker.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs crl put milan.crl
  coffer kbs crl list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[admin!("put": PutArgs => put), admin!("list": ListArgs => list), admin!("remove": RemoveArgs => remove)];

/// Bring the current revocation list of a root, DER or PEM.
///
/// It counts at the next release. From then on no list of that root with a lower number is believed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs crl put milan.crl
  coffer kbs crl put simulated.crl --root ark-milan.der")]
struct PutArgs {
    /// The list; `-` is standard input.
    file: PathBuf,
    /// Certificate of its root, where it is not AMD's and the broker's configuration has it not.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

fn put(args: &PutArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let list = read(&args.file)?;
    let root = args.root.as_deref().map(read).transpose()?;
    let answer = broker.ask(async |client| client.put_crl(&list, root.as_deref()).await)?;
    let info = answer.list.unwrap_or_default();
    let mut value = row(&info);
    value["added"] = json!(answer.added);
    broker.say(&value, || {
        let verb = if answer.added { "counts" } else { "was there already" };
        let until = rfc3339(info.next_update_unix);
        format!("list {} of root {} {verb}, valid until {until}", info.number, hex::encode(&info.root))
    });
    Ok(ExitCode::SUCCESS)
}

/// List what was brought, and the highest number that was seen of each root, also of those of which nothing was brought.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs crl list")]
struct ListArgs {}

fn list(_: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (lists, seen_alone) = broker.ask(async |client| client.list_crls().await)?;
    let rows: Vec<_> = lists.rows.iter().map(row).chain(seen_alone.iter().map(alone)).collect();
    Ok(broker.list_all(&["number", "seen", "made", "valid_until", "by", "put", "root"], &rows, &lists.damaged))
}

/// Take the list of a root away: evidence must bring its own again.
///
/// What was seen of that root stays: no list with a lower number is believed, whoever brings it.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:
  coffer kbs crl remove \\
      5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
)]
struct RemoveArgs {
    /// SHA-256 of the root's SubjectPublicKeyInfo, 64 hex digits, as `list` shows it.
    root: SpkiDigest,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let root = args.root;
    let (existed, seen) = broker.ask(async |client| client.remove_crl(&root).await)?;
    if !existed {
        return Err(not_found(format!("no revocation list of root {root} was brought"), "crl list"));
    }
    broker.say(&json!({ "root": root, "removed": true, "seen": seen }), || {
        format!("list of root {root} removed; no list of it below {seen} is believed")
    });
    Ok(ExitCode::SUCCESS)
}

/// A root of which no list is kept: what was seen of it counts all the same.
fn alone(seen: &SeenCrl) -> Value {
    json!({
        "root": hex::encode(&seen.root), "number": null, "seen": seen.number, "made": null, "valid_until": null, "by": null, "put": null,
    })
}

fn row(info: &CrlInfo) -> Value {
    json!({
        "root": hex::encode(&info.root), "number": info.number, "seen": info.seen,
        "made": rfc3339(info.this_update_unix), "valid_until": rfc3339(info.next_update_unix),
        "by": info.by, "put": rfc3339(info.put_unix),
    })
}
