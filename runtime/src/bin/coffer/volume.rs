//! `coffer volume`: what boxes keep beyond their lives, in Docker's words.

pub mod create;
pub mod inspect;
pub mod ls;
pub mod prune;
pub mod rm;

use coffer_runtime::engine::{Listed, NamedFilter};
use coffer_spec::Name;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::named;
use crate::row::Entry;
use crate::table;

/// Look after volumes, which outlive boxes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer volume create db
  coffer volume ls
  coffer volume prune")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    command!("create": create),
    command!("ls": ls),
    command!("inspect": inspect),
    command!("rm": rm),
    command!("prune": prune),
];

/// The one kind there is.
const DRIVER: &str = "local";

/// A name as it is typed.
fn name(text: &str) -> Result<Name, CliError> {
    named::name("volume", text)
}

/// Reads filters.
fn filter(texts: &[String], keys: &str) -> Result<NamedFilter, CliError> {
    named::filter(texts, keys, DRIVER)
}

/// Everything known of a volume, in Docker's words.
fn describe(listed: &Listed) -> Value {
    let Listed { volume, boxes } = listed;
    let size = volume.limit();
    json!({
        "Name": volume.name.as_str(), "Driver": DRIVER, "Scope": "local",
        "CreatedAt": table::rfc3339(volume.record.created), "Labels": volume.record.labels,
        "Mountpoint": volume.mountpoint(), "Options": size.map(|bytes| json!({ "size": bytes.to_string() })),
        "Kind": volume.kind(), "SizeLimit": size, "DiskBytes": volume.disk_bytes(),
        "Anonymous": volume.record.anonymous, "Boxes": boxes,
    })
}

/// The same for the list of `--json`, which is in no words of Docker's.
fn row(listed: &Listed) -> Value {
    let Listed { volume, boxes } = listed;
    json!({
        "name": volume.name.as_str(), "created": table::rfc3339(volume.record.created), "labels": volume.record.labels,
        "mountpoint": volume.mountpoint(), "kind": volume.kind(), "size_limit": volume.limit(),
        "disk_bytes": volume.disk_bytes(), "anonymous": volume.record.anonymous, "boxes": boxes,
    })
}
