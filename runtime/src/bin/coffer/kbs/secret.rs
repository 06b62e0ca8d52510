//! `coffer kbs secret`: values of secrets go in, and never come back.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_kbs_client::{Expected, PathError, PutSecret, ResourcePath};
use secrecy::SecretBox;
use serde_json::json;

use super::broker::{Broker, not_found, read};
use super::{Tenant, admin, rfc3339};
use crate::error::CliError;
use crate::row::Entry;

/// Put, list and remove secrets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  printf %s hunter2 | coffer kbs secret put default/app/password
  coffer kbs secret list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[admin!("put": PutArgs => put), admin!("list": ListArgs => list), admin!("remove": RemoveArgs => remove)];

/// Store a value as the next version of a secret.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  printf %s hunter2 | coffer kbs secret put default/app/password
  coffer kbs secret put kbs:///default/app/key --file key.bin \\
      --expected-version 0
  coffer kbs secret put default/ci/token --file token --allow-simulated")]
struct PutArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    /// File with the value; `-` is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    tenant: Tenant,
    /// Simulated evidence may have it, where the broker lists the simulator's root for the tenant.
    #[arg(long)]
    allow_simulated: bool,
    /// Store only if this version is current; 0: only if there is none.
    #[arg(long, value_name = "N")]
    expected_version: Option<u64>,
    /// Release policy the broker knows by this name.
    #[arg(long, default_value = "default", value_name = "NAME")]
    policy: String,
}

fn put(args: &PutArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let value = SecretBox::new(Box::new(read(&args.file)?));
    let put = PutSecret {
        tenant: &args.tenant.tenant,
        path: &args.path,
        value: &value,
        allow_simulated: args.allow_simulated,
        expected: match args.expected_version {
            None => Expected::Any,
            Some(0) => Expected::Absent,
            Some(version) => Expected::Version(version),
        },
        policy: &args.policy,
    };
    let stored = broker.ask(async |client| client.put_secret(put).await)?;
    let path = &args.path;
    let before = stored.before.as_ref().map(|before| {
        json!({ "version": before.version, "policy": before.policy, "allow_simulated": before.allow_simulated })
    });
    let row = json!({
        "path": path.as_str(), "version": stored.version, "policy": stored.policy,
        "allow_simulated": stored.allow_simulated, "before": before,
    });
    broker.say(&row, || format!("{path} {}", stored.changes().join("; ")));
    Ok(ExitCode::SUCCESS)
}

/// List secrets; values never come back.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs secret list --tenant acme --json")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let secrets = broker.ask(async |client| client.list_secrets(&args.tenant.tenant).await)?;
    let row = |secret: &coffer_kbs_client::SecretInfo| {
        json!({
            "path": secret.path, "version": secret.version, "length": secret.length,
            "policy": secret.policy, "allow_simulated": secret.allow_simulated,
            "created": rfc3339(secret.created_unix),
        })
    };
    let rows: Vec<_> = secrets.iter().map(row).collect();
    broker.list(&["path", "version", "length", "policy", "allow_simulated", "created"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Remove a secret.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm", after_help = "Examples:\n  coffer kbs secret remove default/app/password")]
struct RemoveArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (path, tenant) = (&args.path, &args.tenant.tenant);
    if !broker.ask(async |client| client.delete_secret(tenant, path).await)? {
        return Err(not_found(format!("tenant {tenant} has no secret {path}"), "secret list"));
    }
    broker.say(&json!({ "path": path.as_str(), "removed": true }), || format!("{path} removed"));
    Ok(ExitCode::SUCCESS)
}

fn path(text: &str) -> Result<ResourcePath, PathError> {
    if text.starts_with("kbs:") { text.parse() } else { format!("kbs:///{text}").parse() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_in_two_forms() {
        assert_eq!(path("a/b/c").unwrap(), path("kbs:///a/b/c").unwrap());
        assert!(path("a/b").is_err());
        assert!(path("kbs://host/a/b").is_err());
    }
}
