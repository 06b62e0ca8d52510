//! `coffer network ls`.

use std::process::ExitCode;

use coffer_runtime::engine::ListedNetwork;
use serde_json::{Value, json};

use super::DRIVER;
use crate::context::Context;
use crate::error::{self, CliError};
use crate::format::{Fields, Format};
use crate::table;

/// List networks.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "list",
    after_help = "Fields for --format: Name Driver Scope Subnet Isolation Internal Labels Boxes, and .Label \"KEY\"; \
`--format json` prints them all, a network a line.

Examples:
  coffer network ls
  coffer network ls --format '{{.Name}} {{.Subnet}}'"
)]
pub struct Args {
    /// Names only.
    #[arg(short, long)]
    quiet: bool,
    /// Print networks by a template, a `table` of one, or as `json`.
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// name=TEXT, label=KEY[=VALUE], dangling=true|false: whether no box is in it, driver=bridge.
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
}

/// Lists them, by name.
pub fn run(args: &Args, context: &Context) -> Result<ExitCode, CliError> {
    let filter = super::filter(&args.filter, "name=TEXT, label=KEY[=VALUE], dangling=true|false and driver=bridge")?;
    let format = args.format.as_deref().map(|text| Format::of(text, FIELDS)).transpose()?;
    let found = context.engine()?.list_networks(&filter).map_err(error::of)?;
    if context.json {
        println!("{}", found.iter().map(super::row).collect::<Value>());
    } else if args.quiet {
        for listed in &found {
            println!("{}", listed.network.name);
        }
    } else if let Some(format) = format {
        format.print(&found.iter().map(fields).collect::<Vec<_>>(), &[])?;
    } else {
        let row = |listed: &ListedNetwork| {
            let network = &listed.network;
            let words = [network.name.as_str(), DRIVER, &network.subnet.to_string(), network.isolation.word()];
            words.map(str::to_owned).to_vec()
        };
        table::print(&["NAME", "DRIVER", "SUBNET", "ISOLATION"], &found.iter().map(row).collect::<Vec<_>>());
    }
    Ok(ExitCode::SUCCESS)
}

/// For templates.
const FIELDS: &[&str] = &["Name", "Driver", "Scope", "Subnet", "Isolation", "Internal", "Labels", "Boxes"];

fn fields(listed: &ListedNetwork) -> Fields {
    let labels = &listed.network.labels;
    let told: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let known = super::describe(listed);
    Fields {
        value: json!({
            "Name": known["Name"], "Driver": DRIVER, "Scope": "local", "Subnet": listed.network.subnet,
            "Isolation": known["Isolation"], "Internal": known["Internal"], "Labels": told.join(","),
            "Boxes": listed.boxes.len(),
        }),
        labels: labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect(),
    }
}
