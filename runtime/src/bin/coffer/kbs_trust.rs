//! `coffer kbs signer|manifest-key|manifest`: whom a tenant believes beside its list of pairs.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use coffer_kbs_client::{AdminClient, ClientError, ManifestInfo, ManifestKey, Signer};
use coffer_runtime::signing_key::read_public;
use coffer_verifier::SignerRule;
use coffer_verifier::abi::{FamilyId, ImageId, KeyDigest, SpkiDigest};
use coffer_verifier::manifest::SignedManifest;
use coffer_verifier::measure::{key_digest, key_structure};
use serde_json::{Value, json};

use crate::error::{Class, Classify as _, CliError};
use crate::id_flags::{family_id, image_id};
use crate::kbs::{Tenant, client_error, not_found, parse_time, read, rfc3339, say, table};

#[derive(Debug, Subcommand)]
pub enum SignerCommand {
    /// Admit what an author signs, under these names, from this version on.
    #[command(after_help = "Examples:
  coffer kbs signer add web-releases --author-key author.pub --family-id acme --image-id web --minimum-svn 3
  coffer kbs signer add web-releases --author-key 25860fd9… --family-id acme --image-id web --minimum-svn 4")]
    Add {
        /// Name of the rule; one of the same name is replaced.
        name: String,
        /// Digest as `coffer id-key show` prints it, or a PEM file of the author key.
        #[arg(long, value_name = "HEX|PEM", value_parser = author_key)]
        author_key: KeyDigest,
        /// FAMILY_ID: 32 hex digits, or text of up to 16 bytes.
        #[arg(long, value_name = "ID", value_parser = family_id)]
        family_id: FamilyId,
        /// IMAGE_ID, in the same forms.
        #[arg(long, value_name = "ID", value_parser = image_id)]
        image_id: ImageId,
        /// Least GUEST_SVN.
        #[arg(long, value_name = "N")]
        minimum_svn: u32,
        /// Time from which it admits nothing, RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        expires: Option<i64>,
        #[command(flatten)]
        tenant: Tenant,
    },
    /// List rules.
    #[command(visible_alias = "ls", after_help = "Example:\n  coffer kbs signer list --tenant acme")]
    List {
        #[command(flatten)]
        tenant: Tenant,
    },
    /// Remove a rule; takes effect at the next release.
    #[command(visible_alias = "rm", after_help = "Example:\n  coffer kbs signer remove web-releases")]
    Remove {
        /// Name of the rule.
        name: String,
        #[command(flatten)]
        tenant: Tenant,
    },
}

#[derive(Debug, Subcommand)]
pub enum ManifestKeyCommand {
    /// List a key whose manifests are to count.
    #[command(after_help = "Example:\n  coffer kbs manifest-key add manifest.pem.pub --name ci --tenant acme")]
    Add {
        /// Public key, PEM.
        #[arg(value_name = "PEM")]
        file: PathBuf,
        /// Name for people.
        #[arg(long, default_value = "", value_name = "NAME")]
        name: String,
        #[command(flatten)]
        tenant: Tenant,
    },
    /// Show the keys listed.
    #[command(visible_alias = "ls", after_help = "Example:\n  coffer kbs manifest-key list --tenant acme")]
    List {
        #[command(flatten)]
        tenant: Tenant,
    },
    /// Take a key from the list; its manifests admit nothing from the next release on.
    #[command(visible_alias = "rm", after_help = "Example:\n  coffer kbs manifest-key remove 3f0c…")]
    Remove {
        /// SHA-256 of the SubjectPublicKeyInfo, 64 hex digits.
        key: SpkiDigest,
        #[command(flatten)]
        tenant: Tenant,
    },
}

#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Add a signed manifest, in place of the one of its name.
    #[command(after_help = "Example:\n  coffer kbs manifest add web.json --tenant acme")]
    Add {
        /// Signed manifest, from `coffer measure --manifest`; `-` is standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        tenant: Tenant,
    },
    /// List manifests.
    #[command(visible_alias = "ls", after_help = "Example:\n  coffer kbs manifest list --tenant acme")]
    List {
        #[command(flatten)]
        tenant: Tenant,
    },
    /// Revoke a manifest: neither it nor a lower sequence of its name is ever admitted again.
    #[command(after_help = "Example:\n  coffer kbs manifest revoke web --tenant acme")]
    Revoke {
        /// Name of the manifest.
        name: String,
        #[command(flatten)]
        tenant: Tenant,
    },
}

/// A command whose arguments are good.
pub enum Prepared {
    AddSigner(Signer),
    ListSigners(String),
    RemoveSigner(String, String),
    AddKey(ManifestKey),
    ListKeys(String),
    RemoveKey(SpkiDigest, String),
    AddManifest(Vec<u8>, String),
    ListManifests(String),
    RevokeManifest(String, String),
}

impl SignerCommand {
    /// Checks what is on this side.
    pub fn prepare(self) -> Prepared {
        match self {
            Self::Add { name, author_key, family_id, image_id, minimum_svn, expires, tenant } => {
                let rule = SignerRule { author_key, family_id, image_id, minimum_guest_svn: minimum_svn };
                Prepared::AddSigner(Signer { tenant: tenant.tenant, name, rule, expires_unix: expires.unwrap_or(0) })
            }
            Self::List { tenant } => Prepared::ListSigners(tenant.tenant),
            Self::Remove { name, tenant } => Prepared::RemoveSigner(name, tenant.tenant),
        }
    }
}

impl ManifestKeyCommand {
    /// Checks what is on this side.
    pub fn prepare(self) -> Result<Prepared, CliError> {
        Ok(match self {
            Self::Add { file, name, tenant } => {
                Prepared::AddKey(ManifestKey { tenant: tenant.tenant, name, key: read_public(&file)? })
            }
            Self::List { tenant } => Prepared::ListKeys(tenant.tenant),
            Self::Remove { key, tenant } => Prepared::RemoveKey(key, tenant.tenant),
        })
    }
}

impl ManifestCommand {
    /// Checks what is on this side.
    pub fn prepare(self) -> Result<Prepared, CliError> {
        Ok(match self {
            Self::Add { file, tenant } => {
                let envelope = read(&file)?;
                SignedManifest::parse(&envelope).class_while(Class::Config, file.display())?;
                Prepared::AddManifest(envelope, tenant.tenant)
            }
            Self::List { tenant } => Prepared::ListManifests(tenant.tenant),
            Self::Revoke { name, tenant } => Prepared::RevokeManifest(name, tenant.tenant),
        })
    }
}

/// Does it and prints the outcome.
pub async fn perform(client: &AdminClient, prepared: Prepared, as_json: bool) -> Result<(), CliError> {
    let failed = |error: ClientError| client_error(&error);
    match prepared {
        Prepared::AddSigner(signer) => {
            let added = client.add_signer(&signer).await.map_err(failed)?;
            let mut row = signer_row(&signer);
            row["added"] = json!(added);
            say(as_json, &row, || {
                let verb = if added { "added" } else { "replaced" };
                format!("signer {} {verb}: {}", signer.name, signer.rule)
            });
        }
        Prepared::ListSigners(tenant) => {
            let rows: Vec<_> = client.list_signers(&tenant).await.map_err(failed)?.iter().map(signer_row).collect();
            let columns = ["name", "minimum_svn", "expires", "family_id", "image_id", "author_key_digest"];
            say(as_json, &json!(rows), || table(&columns, &rows));
        }
        Prepared::RemoveSigner(name, tenant) => {
            if !client.remove_signer(&tenant, &name).await.map_err(failed)? {
                return Err(not_found(format!("tenant {tenant} has no signer {name}"), "signer list"));
            }
            say(as_json, &json!({ "name": name, "removed": true }), || format!("signer {name} removed"));
        }
        Prepared::AddKey(key) => {
            let added = client.add_manifest_key(&key).await.map_err(failed)?;
            let mut row = key_row(&key);
            row["added"] = json!(added);
            let verb = if added { "listed" } else { "was listed already; name updated" };
            say(as_json, &row, || format!("manifest key {} {verb}", key.key.spki_digest()));
        }
        Prepared::ListKeys(tenant) => {
            let rows: Vec<_> = client.list_manifest_keys(&tenant).await.map_err(failed)?.iter().map(key_row).collect();
            say(as_json, &json!(rows), || table(&["name", "spki_sha256"], &rows));
        }
        Prepared::RemoveKey(key, tenant) => {
            if !client.remove_manifest_key(&tenant, &key).await.map_err(failed)? {
                return Err(not_found(
                    format!("tenant {tenant} does not list manifest key {key}"),
                    "manifest-key list",
                ));
            }
            say(as_json, &json!({ "spki_sha256": key, "removed": true }), || format!("manifest key {key} removed"));
        }
        Prepared::AddManifest(envelope, tenant) => {
            let (added, manifest) = client.add_manifest(&tenant, envelope).await.map_err(failed)?;
            let mut row = manifest_row(&manifest);
            row["added"] = json!(added);
            let verb = if added { "admitted" } else { "was admitted already" };
            say(as_json, &row, || {
                let (name, sequence, count) = (&manifest.name, manifest.sequence, manifest.measurements);
                let until = rfc3339(manifest.expires_unix);
                format!("manifest {name} sequence {sequence} {verb}: {count} measurements until {until}")
            });
        }
        Prepared::ListManifests(tenant) => {
            let rows: Vec<_> = client.list_manifests(&tenant).await.map_err(failed)?.iter().map(manifest_row).collect();
            let columns =
                ["name", "sequence", "state", "revoked_through", "expires", "measurements", "workload_digest"];
            say(as_json, &json!(rows), || table(&columns, &rows));
        }
        Prepared::RevokeManifest(name, tenant) => {
            let Some(through) = client.revoke_manifest(&tenant, &name).await.map_err(failed)? else {
                return Err(not_found(format!("tenant {tenant} has no manifest {name}"), "manifest list"));
            };
            say(as_json, &json!({ "name": name, "revoked_through": through }), || {
                format!("manifest {name} revoked up to sequence {through}")
            });
        }
    }
    Ok(())
}

fn signer_row(signer: &Signer) -> Value {
    let rule = &signer.rule;
    json!({
        "name": signer.name, "tenant": signer.tenant, "author_key_digest": rule.author_key,
        "family_id": rule.family_id, "image_id": rule.image_id, "minimum_svn": rule.minimum_guest_svn,
        "expires": if signer.expires_unix == 0 { "never".into() } else { rfc3339(signer.expires_unix) },
    })
}

fn key_row(key: &ManifestKey) -> Value {
    json!({ "name": key.name, "tenant": key.tenant, "spki_sha256": key.key.spki_digest() })
}

fn manifest_row(manifest: &ManifestInfo) -> Value {
    let time = |unix: i64| (unix != 0).then(|| rfc3339(unix));
    json!({
        "name": manifest.name, "sequence": manifest.sequence, "state": manifest.state,
        "revoked_through": manifest.revoked_through, "workload_digest": manifest.workload,
        "created": time(manifest.created_unix), "expires": time(manifest.expires_unix),
        "added": time(manifest.added_unix), "measurements": manifest.measurements, "key": manifest.key,
    })
}

/// A digest, or the digest of the key in a file.
fn author_key(text: &str) -> Result<KeyDigest, String> {
    if let Ok(digest) = text.parse() {
        return Ok(digest);
    }
    match read_public(Path::new(text)) {
        Ok(key) => Ok(key_digest(&key_structure(&key))),
        Err(failure) => Err(format!("neither a digest of 96 hex digits nor a key file: {failure}")),
    }
}
