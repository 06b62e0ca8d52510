//! `coffer kbs guests`: who is attested now.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{broker::Broker, times::rfc3339};
use crate::error::CliError;

/// List connections that are attested and admitted now.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs guests
  coffer kbs guests --tenant acme --json")]
pub struct Args {
    /// Of this tenant alone.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

/// Prints them, the oldest first.
pub fn run(args: &Args, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let guests = broker.ask(async |client| client.list_guests(args.tenant.as_deref()).await)?;
    let rows: Vec<_> = guests
        .iter()
        .map(|one| {
            json!({
                "tenant": one.tenant, "since": rfc3339(one.since_unix), "admitted_by": one.admitted_by,
                "anchor": one.anchor, "anchor_fingerprint": one.anchor_fingerprint, "source": one.source,
                "report_id": one.report_id, "chip_id": one.chip_id, "measurement": one.measurement,
                "workload_digest": one.workload_digest, "peer": one.peer,
            })
        })
        .collect();
    let columns = ["tenant", "since", "admitted_by", "anchor", "source", "report_id", "chip_id"];
    broker.list_as(&columns, &rows, |column, value| match (column, value) {
        // For people the beginning is enough; `--json` has all of it.
        ("report_id" | "chip_id", Value::String(id)) => Some(id.chars().take(16).collect()),
        _ => None,
    });
    Ok(ExitCode::SUCCESS)
}
