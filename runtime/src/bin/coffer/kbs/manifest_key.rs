//! `coffer kbs manifest-key`: the keys whose reference manifests count for a tenant.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_kbs_client::ManifestKey;
use coffer_verifier::abi::SpkiDigest;
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant, public_key};
use super::{Tenant, admin};
use crate::error::{Class, CliError};
use crate::row::Entry;

/// List the keys whose reference manifests count.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs manifest-key add manifest.pem.pub --name ci
  coffer kbs manifest-key list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[admin!("add": AddArgs => add), admin!("list": ListArgs => list), admin!("remove": RemoveArgs => remove)];

/// List a key whose manifests are to count.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs manifest-key add manifest.pem.pub --name ci --tenant acme")]
struct AddArgs {
    /// Public key, PEM.
    #[arg(value_name = "PEM")]
    file: PathBuf,
    /// Name for people.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    tenant: Tenant,
}

fn add(args: &AddArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let key = ManifestKey {
        tenant: args.tenant.tenant.clone(),
        name: args.name.clone().unwrap_or_default(),
        key: public_key(&args.file)?,
    };
    let added = broker.ask(async |client| client.add_manifest_key(&key).await)?;
    let mut value = row(&key);
    value["added"] = json!(added);
    let verb = if added { "listed" } else { "was listed already; name updated" };
    broker.say(&value, || format!("manifest key {} {verb}", key.key.spki_digest()));
    Ok(ExitCode::SUCCESS)
}

/// Show the keys listed.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs manifest-key list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let keys = broker.ask(async |client| client.list_manifest_keys(&args.tenant.tenant).await)?;
    let rows: Vec<_> = keys.rows.iter().map(row).collect();
    Ok(broker.list_all(&["name", "spki_sha256"], &rows, &keys.damaged))
}

/// Take a key from the list; its manifests admit nothing from the next release on.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:\n  coffer kbs manifest-key remove ci\n  coffer kbs manifest-key remove 3f0c…"
)]
struct RemoveArgs {
    /// Its name, or the SHA-256 of its SubjectPublicKeyInfo in 64 hex digits.
    key: String,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let tenant = &args.tenant.tenant;
    let not_there = || {
        not_found(
            format!("tenant {tenant} lists no manifest key {}", coffer_rim::foreign(&args.key)),
            &of_tenant("manifest-key list", tenant),
        )
    };
    let key = &if let Ok(digest) = args.key.parse() {
        digest
    } else {
        let keys = broker.ask(async |client| client.list_manifest_keys(tenant).await)?;
        one_named(&keys.rows, &args.key, tenant)?.ok_or_else(not_there)?
    };
    if !broker.ask(async |client| client.remove_manifest_key(tenant, key).await)? {
        return Err(not_there());
    }
    broker.say(&json!({ "spki_sha256": key, "removed": true }), || format!("manifest key {key} removed"));
    Ok(ExitCode::SUCCESS)
}

/// The key of this name, which must be one: names are for people, and two keys may have the same.
fn one_named(keys: &[ManifestKey], name: &str, tenant: &str) -> Result<Option<SpkiDigest>, CliError> {
    let found: Vec<_> = keys.iter().filter(|key| key.name == name).map(|key| key.key.spki_digest()).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(*one)),
        several => Err(CliError::new(Class::Usage, format!("{} keys are named {name}", several.len())).hint(format!(
            "name the one that is meant by its digest: `coffer kbs {}` shows it",
            of_tenant("manifest-key list", tenant)
        ))),
    }
}

fn row(key: &ManifestKey) -> Value {
    json!({ "name": key.name, "tenant": key.tenant, "spki_sha256": key.key.spki_digest() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_runtime::signing_key::SigningKey;

    #[test]
    fn a_name_names_one_key_or_none() {
        let key = |name: &str| ManifestKey {
            tenant: "default".into(),
            name: name.into(),
            key: *SigningKey::generate().unwrap().public(),
        };
        let keys = [key("ci"), key("two"), key("two")];
        assert_eq!(one_named(&keys, "ci", "default").unwrap(), Some(keys[0].key.spki_digest()));
        assert_eq!(one_named(&keys, "nobody", "default").unwrap(), None);
        assert_eq!(one_named(&keys, "two", "default").unwrap_err().class, Class::Usage);
    }
}
