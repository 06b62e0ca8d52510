//! `coffer volume ls`.

use std::process::ExitCode;

use coffer_runtime::engine::Listed;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::{self, CliError};
use crate::format::{Fields, Format};
use crate::table;

/// List volumes.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "Fields for --format: Name Driver Scope Labels Mountpoint Links Size CreatedAt, and .Label \"KEY\"; \
`--format json` prints them all, a volume a line.

Examples:
  coffer volume ls -q --filter dangling=true
  coffer volume ls --format '{{.Name}} {{.Size}}'"
)]
pub struct Args {
    /// Names only.
    #[arg(short, long)]
    quiet: bool,
    /// Print volumes by a template, a `table` of one, or as `json`.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// name=TEXT, label=KEY[=VALUE], dangling=true|false: whether no box has it, driver=local.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Lists them, by name.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let filter = super::filter(&args.filter, "name=TEXT, label=KEY[=VALUE], dangling=true|false and driver=local")?;
    let format = args.format.as_deref().map(|text| Format::of(text, FIELDS)).transpose()?;
    let found = context.engine()?.list_volumes(&filter).map_err(error::of)?;
    if context.json {
        println!("{}", found.iter().map(super::row).collect::<Value>());
    } else if args.quiet {
        for listed in &found {
            println!("{}", listed.volume.name);
        }
    } else if let Some(format) = format {
        let headings = [("Name", "VOLUME NAME")];
        format.print(&found.iter().map(fields).collect::<Vec<_>>(), &headings)?;
    } else {
        let row = |listed: &Listed| vec!["local".into(), listed.volume.name.to_string()];
        table::print(&["DRIVER", "VOLUME NAME"], &found.iter().map(row).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

/// For templates.
const FIELDS: &[&str] = &["Name", "Driver", "Scope", "Labels", "Mountpoint", "Links", "Size", "CreatedAt"];

fn fields(listed: &Listed) -> Fields {
    let Listed { volume, boxes } = listed;
    let labels = &volume.record.labels;
    let told: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Fields {
        value: json!({
            "Name": volume.name.as_str(), "Driver": "local", "Scope": "local", "Labels": told.join(","),
            "Mountpoint": volume.mountpoint(), "Links": boxes.len(), "Size": table::size(volume.disk_bytes()),
            "CreatedAt": table::rfc3339(volume.record.created),
        }),
        labels: labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect(),
    }
}
