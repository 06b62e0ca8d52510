//! `coffer kbs tenant`: the tenants of a broker.

use std::process::ExitCode;

use serde_json::json;

use super::admin;
use super::broker::Broker;
use crate::error::CliError;
use crate::row::Entry;

/// Create and list tenants.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs tenant add acme
  coffer kbs tenant list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[admin!("add": AddArgs => add), admin!("list": ListArgs => list)];

/// Create a tenant; nothing can be put for one that is not there.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs tenant add acme")]
struct AddArgs {
    /// Name, as workload specs have it.
    name: String,
}

fn add(args: &AddArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let name = &args.name;
    let added = broker.ask(async |client| client.add_tenant(name).await)?;
    broker.say(&json!({ "tenant": name, "added": added }), || {
        let verb = if added { "created" } else { "is there already" };
        format!("tenant {name} {verb}")
    });
    Ok(ExitCode::SUCCESS)
}

/// List tenants.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs tenant list")]
struct ListArgs {}

fn list(_: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let tenants = broker.ask(async |client| client.list_tenants().await)?;
    let rows: Vec<_> = tenants.iter().map(|tenant| json!({ "tenant": tenant })).collect();
    broker.list(&["tenant"], &rows);
    Ok(ExitCode::SUCCESS)
}
