//! `coffer kbs volume`: records of sealed volumes.

use std::process::ExitCode;

use coffer_kbs_client::SealedVolume;
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant};
use super::{Tenant, admin};
use crate::error::{Class, CliError};
use crate::row::Entry;

/// See how sealed volumes were left, and let one be recovered or begin anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs volume list
  coffer kbs volume confirm db")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    admin!("list": ListArgs => list),
    admin!("confirm": ConfirmArgs => confirm),
    admin!("forget": ForgetArgs => forget),
];

/// List volumes: whose they are, how often they were opened and closed, and how they were left.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs volume list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let volumes = broker.ask(async |client| client.list_volumes(&args.tenant.tenant).await)?;
    let rows: Vec<_> = volumes.rows.iter().map(row).collect();
    Ok(broker.list_all(&["name", "policy", "subject", "generation", "state"], &rows, &volumes.damaged))
}

/// Let a volume be used that was not closed: each of its blocks may be any that was ever written there.
///
/// No box may run with it meanwhile: one that does cannot close it any more, and says `sealed-volume-left-open`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs volume confirm db")]
struct ConfirmArgs {
    #[command(flatten)]
    which: Which,
}

fn confirm(args: &ConfirmArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let words = "confirmed: its next start recovers what is on its disk";
    args.which.allow(broker, false, words)
}

/// Let a volume begin anew, on an empty disk: what was on it opens nowhere any more.
///
/// No box may run with it meanwhile: what such a box writes is lost, and it ends with `sealed-volume-left-open`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs volume forget db")]
struct ForgetArgs {
    #[command(flatten)]
    which: Which,
}

fn forget(args: &ForgetArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let words = "forgotten: its next start makes a new one, on an empty disk alone";
    args.which.allow(broker, true, words)
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Name of the volume, as its spec has it.
    name: String,
    /// Whose it is, where several have one of that name: as `list` shows it.
    #[arg(long, value_name = "HEX")]
    subject: Option<String>,
    #[command(flatten)]
    tenant: Tenant,
}

impl Which {
    fn allow(&self, broker: &Broker<'_>, anew: bool, words: &str) -> Result<ExitCode, CliError> {
        let (name, tenant) = (&self.name, &self.tenant.tenant);
        let subject = self.subject.as_deref().map(hex::decode).transpose().map_err(|_| {
            CliError::new(Class::Usage, "--subject is no hex").hint("`coffer kbs volume list` shows subjects")
        })?;
        let Some(volume) = broker.ask(async |client| client.allow_volume(tenant, name, subject, anew).await)? else {
            let message = format!("tenant {tenant} has no sealed volume {name}");
            return Err(not_found(message, &of_tenant("volume list", tenant)));
        };
        broker.say(&row(&volume), || format!("sealed volume {name} {words}"));
        Ok(ExitCode::SUCCESS)
    }
}

fn row(volume: &SealedVolume) -> Value {
    json!({
        "name": String::from_utf8_lossy(&volume.name), "policy": volume.policy, "subject": hex::encode(&volume.subject),
        "anchor": hex::encode(&volume.anchor), "generation": volume.generation, "state": volume.state,
    })
}
