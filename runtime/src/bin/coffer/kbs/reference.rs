//! `coffer kbs reference`: pairs of a measurement and a workload that a tenant admits.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_kbs_client::Reference;
use coffer_verifier::abi::{Measurement, WorkloadDigest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant, read};
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
    let (measurements, workload) = match &args.from {
        Some(file) => measured(&read(file)?, Some(&args.tenant.tenant))?,
        None => both(&args.pair, ADD).map(|(measurement, workload)| (vec![measurement], workload))?,
    };
    let mut said = Vec::new();
    for measurement in measurements {
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
        said.push(value);
    }
    // One object for one pair, as ever; the first with all of them for several.
    let mut value = said[0].clone();
    if said.len() > 1 {
        value["pairs"] = json!(said);
    }
    broker.say_each(&value, || said.iter().map(line));
    Ok(ExitCode::SUCCESS)
}

/// One pair, as a person is told of it.
fn line(value: &Value) -> String {
    let verb = if value["added"] == true { "admitted" } else { "was admitted already; name and expiry updated" };
    let word = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    format!("measurement {} for workload {} {verb}", word("measurement"), word("workload_digest"))
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
    let rows: Vec<_> = references.rows.iter().map(row).collect();
    Ok(broker.list_all(&["name", "expires", "workload_digest", "measurement"], &rows, &references.damaged))
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
    /// All pairs of the one workload that was added under this name; where there are several workloads of that name, none.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["measurement", "workload"])]
    name: Option<String>,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let tenant = &args.tenant.tenant;
    let (measurements, workload) = match &args.name {
        None => both(&args.pair, REMOVE).map(|(measurement, workload)| (vec![measurement], workload))?,
        Some(name) => {
            let all = broker.ask(async |client| client.list_references(tenant).await)?;
            let not_there = || {
                not_found(format!("tenant {tenant} lists no pair named {name}"), &of_tenant("reference list", tenant))
            };
            of_one_workload(&all.rows, name, tenant)?.ok_or_else(not_there)?
        }
    };
    for measurement in &measurements {
        if !broker.ask(async |client| client.remove_reference(tenant, measurement, &workload).await)? {
            return Err(not_found(
                format!("tenant {tenant} does not list that pair"),
                &of_tenant("reference list", tenant),
            ));
        }
    }
    let mut value = json!({ "measurement": measurements[0], "workload_digest": workload, "removed": true });
    if measurements.len() > 1 {
        value["measurements"] = json!(measurements);
    }
    broker.say_each(&value, || {
        let line = |measurement| format!("measurement {measurement} for workload {workload} removed");
        measurements.iter().map(line).collect::<Vec<_>>()
    });
    Ok(ExitCode::SUCCESS)
}

/// The pairs of this name, which must be of one workload: names are for people, and two workloads may have the same. One
/// workload has a measurement for each launch form it was added in.
fn of_one_workload(
    all: &[Reference],
    name: &str,
    tenant: &str,
) -> Result<Option<(Vec<Measurement>, WorkloadDigest)>, CliError> {
    let found: Vec<_> = all.iter().filter(|one| one.name == name).collect();
    let Some(first) = found.first() else { return Ok(None) };
    if found.iter().any(|one| one.workload != first.workload) {
        return Err(CliError::new(Class::Usage, format!("pairs of more than one workload are named {name}")).hint(
            format!(
                "name each that is meant with --measurement and --workload: `coffer kbs {}` shows them",
                of_tenant("reference list", tenant)
            ),
        ));
    }
    Ok(Some((found.iter().map(|one| one.measurement).collect(), first.workload)))
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
    /// What a run of it may be launched as: with no monitor named, one for each that may be taken.
    run_measurements: Option<Vec<String>>,
    workload_digest: String,
    /// Whose the workload is, as its spec says. What an older program printed has none.
    tenant: Option<String>,
}

/// What `coffer measure --json` prints where it fails.
#[derive(Deserialize)]
struct Failed {
    error: Why,
}

#[derive(Deserialize)]
struct Why {
    class: Class,
    message: String,
    hint: Option<String>,
}

/// The pairs in the output of `coffer measure --json`. Those that are to be listed for a tenant must be of it: for another they admit nobody.
pub fn measured(bytes: &[u8], tenant: Option<&str>) -> Result<(Vec<Measurement>, WorkloadDigest), CliError> {
    let hint = "write the output of `coffer measure --json` there";
    // What is at the other end of a pipe has said why in its one document.
    if let Ok(Failed { error }) = serde_json::from_slice(bytes) {
        let failure = CliError::new(error.class, error.message).while_doing("there is no measurement");
        return Err(CliError { hint: error.hint, ..failure });
    }
    let parsed: Measured = serde_json::from_slice(bytes)
        .class_while(Class::Config, "reading the measurement")
        .map_err(|error| error.hint(hint))?;
    if let (Some(of), Some(tenant)) = (parsed.tenant.as_deref(), tenant)
        && of != tenant
    {
        let of = coffer_rim::foreign(of);
        let message =
            format!("the workload that was measured is of tenant {of}, and a pair of tenant {tenant} never admits it");
        return Err(CliError::new(Class::Usage, message)
            .hint(format!("was --tenant {of} meant here, or --tenant {tenant} of `coffer measure` and `run`?")));
    }
    let all = parsed.run_measurements.filter(|all| !all.is_empty()).unwrap_or_else(|| vec![parsed.measurement]);
    let measurements = all.iter().map(|one| one.parse()).collect::<Result<_, _>>();
    let measurements = measurements.class(Class::Config).map_err(|error| error.hint(hint))?;
    let workload = parsed.workload_digest.parse().class(Class::Config).map_err(|error| error.hint(hint))?;
    Ok((measurements, workload))
}

/// What else names a pair.
const ADD: &str = "`coffer measure --json` prints both; `coffer kbs reference add --from FILE` takes that";
const REMOVE: &str = "`coffer kbs reference list` shows both; --name NAME removes the pairs that were added under it";

fn both(pair: &Pair, hint: &str) -> Result<(Measurement, WorkloadDigest), CliError> {
    match (pair.measurement, pair.workload) {
        (Some(measurement), Some(workload)) => Ok((measurement, workload)),
        _ => Err(CliError::new(Class::Usage, "a reference is a pair: --measurement and --workload belong together")
            .hint(hint)),
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
        let (measurements, workload) = measured(text.to_string().as_bytes(), Some("default")).unwrap();
        assert_eq!(measurements, [Measurement::new([0xab; 48])]);
        assert_eq!(workload, WorkloadDigest::new([0xcd; 32]));
        let mut forms = text;
        forms["run_measurements"] = json!(["ab".repeat(48), "ef".repeat(48)]);
        let (measurements, _) = measured(forms.to_string().as_bytes(), Some("default")).unwrap();
        assert_eq!(measurements, [Measurement::new([0xab; 48]), Measurement::new([0xef; 48])]);
        forms["run_measurements"] = json!(["ab".repeat(48), "ef"]);
        assert!(measured(forms.to_string().as_bytes(), Some("default")).is_err());
        assert!(measured(b"{}", Some("default")).is_err());
        // One that says whose it is counts for nobody else.
        let mut acmes = json!({ "measurement": "ab".repeat(48), "workload_digest": "cd".repeat(32), "tenant": "acme" });
        assert!(measured(acmes.to_string().as_bytes(), Some("acme")).is_ok());
        let error = measured(acmes.to_string().as_bytes(), Some("default")).unwrap_err();
        assert_eq!(error.class, Class::Usage);
        assert!(error.hint.unwrap().contains("--tenant acme"));
        acmes["tenant"] = "de\u{1b}fault".into();
        assert!(!measured(acmes.to_string().as_bytes(), Some("default")).unwrap_err().message.contains('\u{1b}'));
        let short = json!({ "measurement": "ab", "workload_digest": "cd".repeat(32) });
        assert!(measured(short.to_string().as_bytes(), Some("default")).is_err());
    }

    #[test]
    fn what_measure_could_not_do_is_said_as_it_said_it() {
        let said = CliError::new(Class::NotFound, "image nosuch is not here").hint("`coffer pull nosuch` gets it");
        let error = measured(said.json().to_string().as_bytes(), Some("default")).unwrap_err();
        assert_eq!((error.class, error.hint), (Class::NotFound, said.hint));
        assert_eq!(error.message, "there is no measurement: image nosuch is not here");
    }

    #[test]
    fn each_pair_has_a_line_of_its_own() {
        let pair = |measurement, added| {
            let (measurement, workload) = (Measurement::new([measurement; 48]), WorkloadDigest::new([7; 32]));
            let (tenant, name) = ("default".to_owned(), "web".to_owned());
            let mut value = row(&Reference { tenant, measurement, workload, name, expires: expiry(None) });
            value["added"] = json!(added);
            coffer_rim::foreign(&line(&value)).to_string()
        };
        let lines = [pair(1, true), pair(2, false)];
        assert_eq!(lines[0], format!("measurement {} for workload {} admitted", "01".repeat(48), "07".repeat(32)));
        assert!(lines[1].starts_with(&format!("measurement {}", "02".repeat(48))) && lines[1].contains("already"));
        assert!(lines.iter().all(|line| !line.contains('\n') && !line.contains('\\')), "{lines:?}");
    }

    #[test]
    fn a_name_names_one_workload_or_none() {
        let pair = |name: &str, measurement, workload| Reference {
            tenant: "default".into(),
            measurement: Measurement::new([measurement; 48]),
            workload: WorkloadDigest::new([workload; 32]),
            name: name.into(),
            expires: expiry(None),
        };
        let all = [pair("web", 1, 1), pair("web", 2, 1), pair("two", 2, 2), pair("two", 3, 3)];
        let both = vec![all[0].measurement, all[1].measurement];
        assert_eq!(of_one_workload(&all, "web", "acme").unwrap(), Some((both, all[0].workload)));
        assert_eq!(of_one_workload(&all, "nobody", "acme").unwrap(), None);
        let error = of_one_workload(&all, "two", "acme").unwrap_err();
        assert_eq!(error.class, Class::Usage);
        assert!(error.hint.unwrap().contains("reference list --tenant acme"));
    }

    #[test]
    fn half_a_pair_is_a_usage_error() {
        let half = Pair { measurement: Some(Measurement::new([1; 48])), workload: None };
        for (hint, word) in [(ADD, "--from"), (REMOVE, "--name")] {
            let error = both(&half, hint).unwrap_err();
            assert_eq!(error.class, Class::Usage);
            assert!(error.hint.unwrap().contains(word));
        }
    }
}
