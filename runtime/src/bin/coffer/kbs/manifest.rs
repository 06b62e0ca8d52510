//! `coffer kbs manifest`: signed reference manifests at a broker.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_kbs_client::{ManifestInfo, RevokedManifest, StillAdmitted};
use coffer_verifier::manifest::SignedManifest;
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant, read};
use super::{Tenant, admin, rfc3339};
use crate::error::CliError;
use crate::launch::signed_manifest::no_manifest;
use crate::row::Entry;

/// Add, list and revoke signed reference manifests.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs manifest add web.json
  coffer kbs manifest list
  coffer kbs manifest revoke web")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[admin!("add": AddArgs => add), admin!("list": ListArgs => list), admin!("revoke": RevokeArgs => revoke)];

/// Add a signed manifest, in place of the one of its name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs manifest add web.json --tenant acme")]
struct AddArgs {
    /// Signed manifest, from `coffer measure --manifest`; `-` is standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    tenant: Tenant,
}

fn add(args: &AddArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let envelope = read(&args.file)?;
    SignedManifest::parse(&envelope).map_err(|error| no_manifest(&error, &args.file))?;
    let (added, manifest) = broker.ask(async |client| client.add_manifest(&args.tenant.tenant, envelope).await)?;
    let mut value = row(&manifest);
    value["added"] = json!(added);
    let verb = if added { "admitted" } else { "was admitted already" };
    broker.say(&value, || {
        let (name, sequence, count) = (&manifest.name, manifest.sequence, manifest.measurements);
        let until = rfc3339(manifest.expires_unix);
        format!("manifest {name} sequence {sequence} {verb}: {count} measurements until {until}")
    });
    Ok(ExitCode::SUCCESS)
}

/// List manifests.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs manifest list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let manifests = broker.ask(async |client| client.list_manifests(&args.tenant.tenant).await)?;
    let rows: Vec<_> = manifests.rows.iter().map(row).collect();
    let columns = ["name", "sequence", "state", "revoked_through", "expires", "measurements", "workload_digest"];
    Ok(broker.list_all_as(&columns, &rows, &manifests.damaged, |column, value| {
        (column == "revoked_through" && *value == json!(0)).then(|| "never".to_owned())
    }))
}

/// Revoke a manifest: neither it nor a lower sequence of its name is ever admitted again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs manifest revoke web --tenant acme")]
struct RevokeArgs {
    /// Name of the manifest.
    name: String,
    #[command(flatten)]
    tenant: Tenant,
}

fn revoke(args: &RevokeArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (name, tenant) = (&args.name, &args.tenant.tenant);
    let Some(revoked) = broker.ask(async |client| client.revoke_manifest(tenant, name).await)? else {
        return Err(not_found(format!("tenant {tenant} has no manifest {name}"), &of_tenant("manifest list", tenant)));
    };
    let still: Vec<_> = revoked
        .still_admitted
        .iter()
        .map(|one| json!({ "manifest": one.manifest, "measurements": one.measurements }))
        .collect();
    let value = json!({
        "name": name, "revoked_through": revoked.through, "measurements": revoked.measurements, "still_admitted": still,
        "signers": revoked.signers,
    });
    broker.say_each(&value, || said(name, &revoked).lines().map(str::to_owned).collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

/// A revocation that reaches less than its name says must not look like one that does.
fn said(name: &str, revoked: &RevokedManifest) -> String {
    let mut lines = vec![format!("manifest {name} revoked up to sequence {}", revoked.through)];
    if revoked.measurements.is_none() {
        let why = "its key is not listed, or the broker is of an older release";
        lines.push(format!("which measurements it had is not known: {why}"));
    }
    let all = |all| format!("of its {all} measurements");
    let of = revoked.measurements.map_or_else(|| "measurements of its workload".to_owned(), all);
    lines.extend(revoked.still_admitted.iter().map(|StillAdmitted { manifest, measurements }| {
        let by = manifest.as_ref().map_or_else(|| "references".to_owned(), |other| format!("manifest {other}"));
        format!("{measurements} {of} are still admitted, by {by}")
    }));
    lines.extend(revoked.signers.iter().map(|signer| {
        let signer = if signer.is_empty() { "without a name" } else { signer };
        format!("launches of the author {signer} are still admitted, whatever manifests say")
    }));
    lines.join("\n")
}

fn row(manifest: &ManifestInfo) -> Value {
    let time = |unix: i64| (unix != 0).then(|| rfc3339(unix));
    json!({
        "name": manifest.name, "sequence": manifest.sequence, "state": manifest.state,
        "revoked_through": manifest.revoked_through, "workload_digest": manifest.workload,
        "created": time(manifest.created_unix), "expires": time(manifest.expires_unix),
        "added": time(manifest.added_unix), "measurements": manifest.measurements, "key": manifest.key,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_revocation_does_not_reach_is_said() {
        let still =
            |manifest: Option<&str>, measurements| StillAdmitted { manifest: manifest.map(Into::into), measurements };
        let revoked = |still_admitted| RevokedManifest {
            through: 3,
            measurements: Some(24),
            still_admitted,
            signers: Vec::new(),
        };
        assert_eq!(said("web", &revoked(Vec::new())), "manifest web revoked up to sequence 3");
        assert_eq!(
            said("web", &revoked(vec![still(Some("next"), 24), still(None, 1)])),
            "manifest web revoked up to sequence 3\n24 of its 24 measurements are still admitted, by manifest next\n\
             1 of its 24 measurements are still admitted, by references"
        );
        let unknown = RevokedManifest {
            measurements: None,
            signers: vec!["vendor".into()],
            ..revoked(vec![still(Some("next"), 24)])
        };
        assert_eq!(
            said("web", &unknown),
            "manifest web revoked up to sequence 3\nwhich measurements it had is not known: its key is not listed, or the broker \
             is of an older release\n24 measurements of its workload are still admitted, by manifest next\nlaunches of the author \
             vendor are still admitted, whatever manifests say"
        );
    }
}
