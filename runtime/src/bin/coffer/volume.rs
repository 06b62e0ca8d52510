//! `coffer volume`: what boxes keep beyond their lives, in Docker's words.

pub mod create;
pub mod inspect;
pub mod ls;
pub mod prune;
pub mod rm;

use coffer_runtime::engine::{Listed, VolumeFilter};
use coffer_spec::Name;
use serde_json::{Value, json};

use crate::boxes::filters;
use crate::error::{Class, CliError};
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

/// A name as it is typed: what is none is the name of no volume.
fn name(text: &str) -> Result<Name, CliError> {
    let no_name = |error| CliError::new(Class::Usage, format!("invalid volume name {text:?}: {error}"));
    text.parse().map_err(no_name)
}

/// Reads filters.
fn filter(texts: &[String], keys: &str) -> Result<VolumeFilter, CliError> {
    let mut filter = VolumeFilter::default();
    for text in texts {
        let invalid =
            || CliError::new(Class::Usage, format!("invalid filter '{text}'")).hint(format!("filters are {keys}"));
        match text.split_once('=').ok_or_else(invalid)? {
            (key, value) if value.is_empty() || !keys.contains(&format!("{key}=")) => return Err(invalid()),
            ("name", value) => filter.names.push(value.into()),
            ("label", value) => filter.labels.push(filters::label(value)),
            ("dangling", "true" | "1") => filter.dangling = Some(true),
            ("dangling", "false" | "0") => filter.dangling = Some(false),
            // There is one.
            ("driver", "local") => {}
            _ => return Err(invalid()),
        }
    }
    Ok(filter)
}

/// Everything known of a volume, in Docker's words.
fn describe(listed: &Listed) -> Value {
    let Listed { volume, boxes } = listed;
    let size = volume.limit();
    json!({
        "Name": volume.name.as_str(), "Driver": "local", "Scope": "local",
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
