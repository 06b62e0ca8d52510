//! `coffer kbs reference`: pairs of a measurement and a workload that a tenant admits.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_kbs_client::Reference;
use coffer_verifier::abi::{Measurement, WorkloadDigest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::broker::{Broker, not_found, read};
use super::{Tenant, admin, expiry, parse_time};
use crate::error::{Class, Classify as _, CliError};
use crate::row::Entry;

/// Admit guests: one measurement for one workload.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer measure --spec spec.toml --json | coffer kbs reference add \\
      --from - --name web-1
  coffer kbs reference list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[admin!("add": AddArgs => add), admin!("list": ListArgs => list), admin!("remove": RemoveArgs => remove)];

/// Admit a (measurement, workload) pair.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer measure --spec spec.toml --json | coffer kbs reference add \\
      --from - --name web-1
  coffer kbs reference add --measurement 9b1f… --workload 77ab… \\
      --expires 2027-01-01T00:00:00Z")]
struct AddArgs {
    #[command(flatten)]
    pair: Pair,
    /// JSON of `coffer measure --json`; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measurement", "workload"])]
    from: Option<PathBuf>,
    /// Name for people.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Time from which it admits nothing, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    expires: Option<i64>,
    #[command(flatten)]
    tenant: Tenant,
}

fn add(args: &AddArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (measurement, workload) = match &args.from {
        Some(file) => measured(&read(file)?)?,
        None => both(&args.pair)?,
    };
    let reference = Reference {
        tenant: args.tenant.tenant.clone(),
        measurement,
        workload,
        name: args.name.clone().unwrap_or_default(),
        expires: expiry(args.expires),
    };
    let added = broker.ask(async |client| client.add_reference(&reference).await)?;
    let mut value = row(&reference);
    value["added"] = json!(added);
    broker.say(&value, || {
        let verb = if added { "admitted" } else { "was admitted already; name and expiry updated" };
        format!("measurement {measurement} for workload {workload} {verb}")
    });
    Ok(ExitCode::SUCCESS)
}

/// List admitted pairs.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs reference list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let references = broker.ask(async |client| client.list_references(&args.tenant.tenant).await)?;
    let rows: Vec<_> = references.iter().map(row).collect();
    broker.list(&["name", "expires", "workload_digest", "measurement"], &rows);
    Ok(ExitCode::SUCCESS)
}

/// Stop admitting a pair; takes effect at the next release.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:
  coffer kbs reference remove --name web-1
  coffer kbs reference remove --measurement 9b1f… --workload 77ab…"
)]
struct RemoveArgs {
    #[command(flatten)]
    pair: Pair,
    /// The pair that was added under this name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["measurement", "workload"])]
    name: Option<String>,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let tenant = &args.tenant.tenant;
    let (measurement, workload) = match &args.name {
        None => both(&args.pair)?,
        Some(name) => {
            let all = broker.ask(async |client| client.list_references(tenant).await)?;
            let not_there = || not_found(format!("tenant {tenant} lists no pair named {name}"), "reference list");
            one_named(&all, name)?.ok_or_else(not_there)?
        }
    };
    if !broker.ask(async |client| client.remove_reference(tenant, &measurement, &workload).await)? {
        return Err(not_found(format!("tenant {tenant} does not list that pair"), "reference list"));
    }
    let value = json!({ "measurement": measurement, "workload_digest": workload, "removed": true });
    broker.say(&value, || format!("measurement {measurement} for workload {workload} removed"));
    Ok(ExitCode::SUCCESS)
}

/// The pair of this name, which must be one: names are for people, and two pairs may have the same.
fn one_named(all: &[Reference], name: &str) -> Result<Option<(Measurement, WorkloadDigest)>, CliError> {
    let found: Vec<_> = all.iter().filter(|one| one.name == name).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some((one.measurement, one.workload))),
        several => Err(CliError::new(Class::Usage, format!("{} pairs are named {name}", several.len())).hint(
            "name the one that is meant with --measurement and --workload: `coffer kbs reference list` shows them",
        )),
    }
}

#[derive(Debug, clap::Args)]
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

fn row(reference: &Reference) -> Value {
    json!({
        "name": reference.name, "measurement": reference.measurement, "workload_digest": reference.workload,
        "tenant": reference.tenant, "expires": reference.expires.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_name_names_one_pair_or_none() {
        let pair = |name: &str, byte| Reference {
            tenant: "default".into(),
            measurement: Measurement::new([byte; 48]),
            workload: WorkloadDigest::new([byte; 32]),
            name: name.into(),
            expires: expiry(None),
        };
        let all = [pair("web", 1), pair("two", 2), pair("two", 3)];
        assert_eq!(one_named(&all, "web").unwrap(), Some((all[0].measurement, all[0].workload)));
        assert_eq!(one_named(&all, "nobody").unwrap(), None);
        assert_eq!(one_named(&all, "two").unwrap_err().class, Class::Usage);
    }

    #[test]
    fn half_a_pair_is_a_usage_error() {
        let half = Pair { measurement: Some(Measurement::new([1; 48])), workload: None };
        assert_eq!(both(&half).unwrap_err().class, Class::Usage);
    }
}
