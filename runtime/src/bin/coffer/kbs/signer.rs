//! `coffer kbs signer`: authors whose launches a tenant admits.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_kbs_client::Signer;
use coffer_verifier::SignerRule;
use coffer_verifier::abi::{FamilyId, ImageId, KeyDigest};
use coffer_verifier::measure::{key_digest, key_structure};
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant, public_key};
use super::{Tenant, admin, expiry, parse_time};
use crate::error::{Class, CliError};
use crate::launch::id_flags::{family_id, image_id};
use crate::row::Entry;

/// Admit what an author signed: rules that outlive upgrades.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs signer add web-releases --author-key author.pem.pub \\
      --family-id acme --image-id web --minimum-svn 3
  coffer kbs signer list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[admin!("add": AddArgs => add), admin!("list": ListArgs => list), admin!("remove": RemoveArgs => remove)];

/// Admit what an author signs, under these names, from this version on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs signer add web-releases --author-key author.pem.pub \\
      --family-id acme --image-id web --minimum-svn 3
  coffer kbs signer add web-releases --author-key 25860fd9… \\
      --family-id acme --image-id web --minimum-svn 4")]
struct AddArgs {
    /// Name of the rule; one of the same name is replaced.
    name: String,
    /// Digest as `coffer id-key show` prints it, or a PEM file of the author key.
    #[arg(long, value_name = "HEX|PEM")]
    author_key: AuthorKey,
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
}

fn add(args: &AddArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let signer = Signer {
        tenant: args.tenant.tenant.clone(),
        name: args.name.clone(),
        rule: SignerRule {
            author_key: args.author_key.digest("--author-key")?,
            family_id: args.family_id,
            image_id: args.image_id,
            minimum_guest_svn: args.minimum_svn,
        },
        expires: expiry(args.expires),
    };
    let added = broker.ask(async |client| client.add_signer(&signer).await)?;
    let mut value = row(&signer);
    value["added"] = json!(added);
    broker.say(&value, || {
        let verb = if added { "added" } else { "replaced" };
        format!("signer {} {verb}: {}", signer.name, signer.rule)
    });
    Ok(ExitCode::SUCCESS)
}

/// List rules.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs signer list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let signers = broker.ask(async |client| client.list_signers(&args.tenant.tenant).await)?;
    let rows: Vec<_> = signers.rows.iter().map(row).collect();
    Ok(broker.list_all(
        &["name", "minimum_svn", "expires", "family_id", "image_id", "author_key_digest"],
        &rows,
        &signers.damaged,
    ))
}

/// Remove a rule; takes effect at the next release.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm", after_help = "Examples:\n  coffer kbs signer remove web-releases")]
struct RemoveArgs {
    /// Name of the rule.
    name: String,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (name, tenant) = (&args.name, &args.tenant.tenant);
    if !broker.ask(async |client| client.remove_signer(tenant, name).await)? {
        return Err(not_found(format!("tenant {tenant} has no signer {name}"), &of_tenant("signer list", tenant)));
    }
    broker.say(&json!({ "name": name, "removed": true }), || format!("signer {name} removed"));
    Ok(ExitCode::SUCCESS)
}

/// How an author key is named.
#[derive(Clone, Debug)]
pub enum AuthorKey {
    /// A digest.
    Digest(KeyDigest),
    /// A file with the public key.
    File(PathBuf),
}

impl std::str::FromStr for AuthorKey {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::File(PathBuf::from(text)), Self::Digest))
    }
}

impl AuthorKey {
    /// Its digest. `word`: what named it, on the command line.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn digest(&self, word: &str) -> Result<KeyDigest, CliError> {
        match self {
            Self::Digest(digest) => Ok(*digest),
            Self::File(path) => of_file(path, word),
        }
    }
}

fn of_file(path: &Path, word: &str) -> Result<KeyDigest, CliError> {
    let key = public_key(path).map_err(|failure| {
        if failure.class == Class::Usage {
            return failure;
        }
        failure
            .while_doing(format!("{word} is neither a digest of 96 hex digits nor a key file"))
            .hint("`coffer id-key init --author` makes a key, and `coffer id-key show` prints the digest of one")
    })?;
    Ok(key_digest(&key_structure(&key)))
}

fn row(signer: &Signer) -> Value {
    let rule = &signer.rule;
    json!({
        "name": signer.name, "tenant": signer.tenant, "author_key_digest": rule.author_key,
        "family_id": rule.family_id, "image_id": rule.image_id, "minimum_svn": rule.minimum_guest_svn,
        "expires": signer.expires.to_string(),
    })
}
