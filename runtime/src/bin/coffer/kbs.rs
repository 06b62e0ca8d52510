//! `coffer kbs`: secrets, references and the audit trail of a key broker, over its admin API.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args as ClapArgs, Subcommand};
use coffer_kbs_client::{AdminClient, AdminProfile, ClientError, Expected, PutSecret, Reference, ResourcePath};
use coffer_verifier::abi::{Measurement, WorkloadDigest};
use secrecy::SecretBox;
use serde::Deserialize;
use serde_json::json;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::cli::Context;
use crate::error::{Class, Classify as _, CliError};
use crate::kbs_trust::{self, ManifestCommand, ManifestKeyCommand, SignerCommand};

/// Manage a key broker: which secrets it holds, and which guests it admits.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  coffer kbs secret put default/app/password --file password.txt --profile admin.toml
  coffer measure --spec spec.toml --json | coffer kbs reference add --from - --name web-1
  coffer kbs manifest-key add manifest.pem.pub && coffer kbs manifest add web.json
  coffer kbs signer add web-releases --author-key author.pub --family-id acme --image-id web --minimum-svn 3
  coffer kbs audit --limit 20")]
pub struct Args {
    /// Admin profile written by `coffer-kbs init`.
    #[arg(long, global = true, env = "COFFER_KBS_PROFILE", value_name = "FILE", hide_env_values = true)]
    profile: Option<PathBuf>,

    /// Admin address to use instead of the profile's; the profile's pin holds.
    #[arg(long, global = true, env = "COFFER_KBS_ADDRESS", value_name = "HOST:PORT", hide_env_values = true)]
    address: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put, list and remove secrets.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Admit guests: one measurement for one workload.
    #[command(subcommand)]
    Reference(ReferenceCommand),
    /// Admit what an author signed: rules that outlive upgrades.
    #[command(subcommand)]
    Signer(SignerCommand),
    /// List the keys whose reference manifests count.
    #[command(subcommand)]
    ManifestKey(ManifestKeyCommand),
    /// Add, list and revoke signed reference manifests.
    #[command(subcommand)]
    Manifest(ManifestCommand),
    /// Print audit lines, one JSON object each, oldest first.
    #[command(after_help = "Example:\n  coffer kbs audit --from 10 --limit 5")]
    Audit {
        /// First sequence number.
        #[arg(long, default_value_t = 0, value_name = "N")]
        from: u64,
        /// Number of lines.
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: u32,
    },
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    /// Store a value as the next version of a secret.
    #[command(after_help = "Examples:
  printf %s hunter2 | coffer kbs secret put default/app/password
  coffer kbs secret put kbs:///default/app/key --file key.bin --expected-version 0
  coffer kbs secret put default/ci/token --file token --allow-simulated")]
    Put {
        /// `repository/type/tag`, with or without `kbs:///`.
        #[arg(value_parser = parse_path)]
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
    },
    /// List secrets; values never come back.
    #[command(after_help = "Example:\n  coffer kbs secret ls --tenant acme --json")]
    Ls {
        #[command(flatten)]
        tenant: Tenant,
    },
    /// Remove a secret.
    #[command(after_help = "Example:\n  coffer kbs secret rm default/app/password")]
    Rm {
        /// `repository/type/tag`, with or without `kbs:///`.
        #[arg(value_parser = parse_path)]
        path: ResourcePath,
        #[command(flatten)]
        tenant: Tenant,
    },
}

#[derive(Debug, Subcommand)]
enum ReferenceCommand {
    /// Admit a (measurement, workload) pair.
    #[command(after_help = "Examples:
  coffer measure --spec spec.toml --json | coffer kbs reference add --from - --name web-1
  coffer kbs reference add --measurement 9b1f… --workload 77ab… --expires 2027-01-01T00:00:00Z")]
    Add {
        #[command(flatten)]
        pair: Pair,
        /// JSON of `coffer measure --json`; `-` is standard input.
        #[arg(long, value_name = "FILE", conflicts_with_all = ["measurement", "workload"])]
        from: Option<PathBuf>,
        /// Name for people.
        #[arg(long, default_value = "", value_name = "NAME")]
        name: String,
        /// Time from which it admits nothing, RFC 3339.
        #[arg(long, value_name = "TIME", value_parser = parse_time)]
        expires: Option<i64>,
        #[command(flatten)]
        tenant: Tenant,
    },
    /// List admitted pairs.
    #[command(after_help = "Example:\n  coffer kbs reference ls --tenant acme")]
    Ls {
        #[command(flatten)]
        tenant: Tenant,
    },
    /// Stop admitting a pair; takes effect at the next release.
    #[command(after_help = "Example:\n  coffer kbs reference rm --measurement 9b1f… --workload 77ab…")]
    Rm {
        #[command(flatten)]
        pair: Pair,
        #[command(flatten)]
        tenant: Tenant,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Tenant {
    /// Tenant, as workload specs name it.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub tenant: String,
}

#[derive(Debug, ClapArgs)]
struct Pair {
    /// Launch digest, 96 hex digits.
    #[arg(long, value_name = "HEX")]
    measurement: Option<Measurement>,
    /// Workload digest, 64 hex digits.
    #[arg(long, value_name = "HEX")]
    workload: Option<WorkloadDigest>,
}

/// What `coffer measure --json` prints, as far as it matters here.
#[derive(Deserialize)]
struct Measured {
    measurement: String,
    workload_digest: String,
}

/// Runs it.
pub fn run(args: Box<Args>, context: &Context) -> Result<ExitCode, CliError> {
    let profile = profile(&args)?;
    // Everything that can be wrong on this side is found before a connection is made.
    let prepared = prepare(args.command)?;
    context.runtime()?.block_on(async {
        let client = AdminClient::connect(&profile).await.map_err(|error| client_error(&error))?;
        perform(&client, prepared, context.json).await
    })?;
    Ok(ExitCode::SUCCESS)
}

fn profile(args: &Args) -> Result<AdminProfile, CliError> {
    let path = args.profile.as_ref().ok_or_else(|| {
        CliError::new(Class::Usage, "no admin profile given")
            .hint("use --profile FILE or COFFER_KBS_PROFILE; `coffer-kbs init` writes STATE/admin.toml")
    })?;
    let mut profile = AdminProfile::read(path)
        .class(Class::Config)
        .map_err(|error| error.hint("`coffer-kbs init --state DIR` writes DIR/admin.toml with mode 0600"))?;
    if let Some(address) = &args.address {
        profile.address.clone_from(address);
    }
    Ok(profile)
}

enum Prepared {
    Put {
        path: ResourcePath,
        value: SecretBox<Vec<u8>>,
        tenant: String,
        allow_simulated: bool,
        expected: Expected,
        policy: String,
    },
    ListSecrets(String),
    RemoveSecret(ResourcePath, String),
    AddReference(Reference),
    ListReferences(String),
    RemoveReference(Measurement, WorkloadDigest, String),
    Trust(kbs_trust::Prepared),
    Audit(u64, u32),
}

fn prepare(command: Command) -> Result<Prepared, CliError> {
    Ok(match command {
        Command::Secret(SecretCommand::Put { path, file, tenant, allow_simulated, expected_version, policy }) => {
            let value = SecretBox::new(Box::new(read(&file)?));
            let expected = match expected_version {
                None => Expected::Any,
                Some(0) => Expected::Absent,
                Some(version) => Expected::Version(version),
            };
            Prepared::Put { path, value, tenant: tenant.tenant, allow_simulated, expected, policy }
        }
        Command::Secret(SecretCommand::Ls { tenant }) => Prepared::ListSecrets(tenant.tenant),
        Command::Secret(SecretCommand::Rm { path, tenant }) => Prepared::RemoveSecret(path, tenant.tenant),
        Command::Reference(ReferenceCommand::Add { pair, from, name, expires, tenant }) => {
            let (measurement, workload) = match from {
                Some(file) => measured(&read(&file)?)?,
                None => both(&pair)?,
            };
            let expires_unix = expires.unwrap_or(0);
            Prepared::AddReference(Reference { tenant: tenant.tenant, measurement, workload, name, expires_unix })
        }
        Command::Reference(ReferenceCommand::Ls { tenant }) => Prepared::ListReferences(tenant.tenant),
        Command::Reference(ReferenceCommand::Rm { pair, tenant }) => {
            let (measurement, workload) = both(&pair)?;
            Prepared::RemoveReference(measurement, workload, tenant.tenant)
        }
        Command::Signer(command) => Prepared::Trust(command.prepare()),
        Command::ManifestKey(command) => Prepared::Trust(command.prepare()?),
        Command::Manifest(command) => Prepared::Trust(command.prepare()?),
        Command::Audit { from, limit } => Prepared::Audit(from, limit),
    })
}

async fn perform(client: &AdminClient, prepared: Prepared, as_json: bool) -> Result<(), CliError> {
    let failed = |error: ClientError| client_error(&error);
    match prepared {
        Prepared::Put { path, value, tenant, allow_simulated, expected, policy } => {
            let put =
                PutSecret { tenant: &tenant, path: &path, value: &value, allow_simulated, expected, policy: &policy };
            let version = client.put_secret(put).await.map_err(failed)?;
            say(as_json, &json!({ "path": path.as_str(), "version": version }), || format!("{path} version {version}"));
        }
        Prepared::ListSecrets(tenant) => {
            let secrets = client.list_secrets(&tenant).await.map_err(failed)?;
            let rows: Vec<_> = secrets
                .iter()
                .map(|secret| {
                    json!({
                        "path": secret.path, "version": secret.version, "length": secret.length,
                        "policy": secret.policy, "allow_simulated": secret.allow_simulated,
                        "created": rfc3339(secret.created_unix),
                    })
                })
                .collect();
            let columns = ["path", "version", "length", "policy", "allow_simulated", "created"];
            say(as_json, &json!(rows), || table(&columns, &rows));
        }
        Prepared::RemoveSecret(path, tenant) => {
            if !client.delete_secret(&tenant, &path).await.map_err(failed)? {
                return Err(not_found(format!("tenant {tenant} has no secret {path}"), "secret ls"));
            }
            say(as_json, &json!({ "path": path.as_str(), "removed": true }), || format!("{path} removed"));
        }
        Prepared::AddReference(reference) => {
            let added = client.add_reference(&reference).await.map_err(failed)?;
            let mut row = reference_row(&reference);
            row["added"] = json!(added);
            say(as_json, &row, || {
                let verb = if added { "admitted" } else { "was admitted already; name and expiry updated" };
                format!("measurement {} for workload {} {verb}", reference.measurement, reference.workload)
            });
        }
        Prepared::ListReferences(tenant) => {
            let references = client.list_references(&tenant).await.map_err(failed)?;
            let rows: Vec<_> = references.iter().map(reference_row).collect();
            say(as_json, &json!(rows), || table(&["name", "expires", "workload_digest", "measurement"], &rows));
        }
        Prepared::RemoveReference(measurement, workload, tenant) => {
            if !client.remove_reference(&tenant, &measurement, &workload).await.map_err(failed)? {
                return Err(not_found(format!("tenant {tenant} does not list that pair"), "reference ls"));
            }
            let row = json!({ "measurement": measurement, "workload_digest": workload, "removed": true });
            say(as_json, &row, || format!("measurement {measurement} for workload {workload} removed"));
        }
        Prepared::Trust(prepared) => kbs_trust::perform(client, prepared, as_json).await?,
        Prepared::Audit(from, limit) => {
            let lines = client.audit(from, limit).await.map_err(failed)?;
            if !lines.is_empty() {
                print(&lines.join("\n"));
            }
        }
    }
    Ok(())
}

fn reference_row(reference: &Reference) -> serde_json::Value {
    json!({
        "name": reference.name, "measurement": reference.measurement, "workload_digest": reference.workload,
        "tenant": reference.tenant,
        "expires": if reference.expires_unix == 0 { "never".into() } else { rfc3339(reference.expires_unix) },
    })
}

pub fn client_error(error: &ClientError) -> CliError {
    let class = match error {
        ClientError::Unreachable { .. } => Class::Unreachable,
        ClientError::Refused { .. } | ClientError::PinMismatch { .. } => Class::Refused,
        _ => Class::Config,
    };
    let refused_key = matches!(error, ClientError::Refused { code, .. } if code == "key-not-admitted");
    let made = CliError::caused(class, error);
    if refused_key {
        return made.hint("the broker's config.toml does not list this profile's key under [[admins]]");
    }
    match error.hint() {
        Some(hint) => made.hint(hint),
        None => made,
    }
}

pub fn not_found(message: String, list: &str) -> CliError {
    CliError::new(Class::NotFound, message).hint(format!("`coffer kbs {list}` shows what is there"))
}

pub fn read(file: &std::path::Path) -> Result<Vec<u8>, CliError> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).class_while(Class::Config, "reading standard input")?;
        return Ok(bytes);
    }
    std::fs::read(file).class_while(Class::Config, format_args!("reading {}", file.display()))
}

fn measured(bytes: &[u8]) -> Result<(Measurement, WorkloadDigest), CliError> {
    let hint = "--from takes the output of `coffer measure --json`";
    let parsed: Measured = serde_json::from_slice(bytes)
        .class_while(Class::Config, "reading the measurement")
        .map_err(|error| error.hint(hint))?;
    let measurement = parsed.measurement.parse().class(Class::Config).map_err(|error| error.hint(hint))?;
    let workload = parsed.workload_digest.parse().class(Class::Config).map_err(|error| error.hint(hint))?;
    Ok((measurement, workload))
}

fn both(pair: &Pair) -> Result<(Measurement, WorkloadDigest), CliError> {
    match (pair.measurement, pair.workload) {
        (Some(measurement), Some(workload)) => Ok((measurement, workload)),
        _ => Err(CliError::new(Class::Usage, "a reference is a pair: --measurement and --workload belong together")
            .hint("`coffer measure --json` prints both; `coffer kbs reference add --from FILE` takes that")),
    }
}

fn parse_path(text: &str) -> Result<ResourcePath, coffer_kbs_client::PathError> {
    if text.starts_with("kbs:") { text.parse() } else { format!("kbs:///{text}").parse() }
}

pub fn parse_time(text: &str) -> Result<i64, String> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| "expected a time like 2027-01-01T00:00:00Z")?;
    if moment.unix_timestamp() <= 0 { Err("expected a time after 1970".into()) } else { Ok(moment.unix_timestamp()) }
}

pub fn rfc3339(unix: i64) -> String {
    OffsetDateTime::from_unix_timestamp(unix).ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

pub fn say(as_json: bool, value: &serde_json::Value, text: impl FnOnce() -> String) {
    print(&if as_json { value.to_string() } else { text() });
}

/// Prints a line; a reader that went away is no failure of ours.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

pub fn table(columns: &[&str], rows: &[serde_json::Value]) -> String {
    let cell = |row: &serde_json::Value, column: &str| match &row[column] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut lines = vec![columns.iter().map(|column| column.to_uppercase().replace('_', " ")).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()));
    let widths: Vec<usize> =
        (0..columns.len()).map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0)).collect();
    let render = |line: &Vec<String>| {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(text, width)| format!("{text:width$}")).collect();
        cells.join("   ").trim_end().to_owned()
    };
    lines.iter().map(render).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_in_two_forms() {
        assert_eq!(parse_path("a/b/c").unwrap(), parse_path("kbs:///a/b/c").unwrap());
        assert!(parse_path("a/b").is_err());
        assert!(parse_path("kbs://host/a/b").is_err());
    }

    #[test]
    fn takes_what_measure_prints() {
        let text = json!({ "measurement": "ab".repeat(48), "workload_digest": "cd".repeat(32), "platform": "x" });
        let (measurement, workload) = measured(text.to_string().as_bytes()).unwrap();
        assert_eq!(measurement, Measurement::new([0xab; 48]));
        assert_eq!(workload, WorkloadDigest::new([0xcd; 32]));
        assert!(measured(b"{}").is_err());
        let short = json!({ "measurement": "ab", "workload_digest": "cd".repeat(32) });
        assert!(measured(short.to_string().as_bytes()).is_err());
    }

    #[test]
    fn half_a_pair_is_a_usage_error() {
        let half = Pair { measurement: Some(Measurement::new([1; 48])), workload: None };
        assert_eq!(both(&half).unwrap_err().class, Class::Usage);
    }

    #[test]
    fn times_are_rfc_3339_and_not_before_1970() {
        assert_eq!(parse_time("1970-01-01T00:00:10Z"), Ok(10));
        assert!(parse_time("tomorrow").is_err());
        assert!(parse_time("1969-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn tables_line_up() {
        let rows = [json!({ "a": "x", "b_c": 1 }), json!({ "a": "yyy", "b_c": 22 })];
        assert_eq!(table(&["a", "b_c"], &rows), "A     B C\nx     1\nyyy   22");
    }
}
