//! `coffer kbs revoke`: what counts no more, whoever admits it.

use std::process::ExitCode;

use coffer_verifier::abi::{ChipId, KeyDigest, Measurement, ReportId, WorkloadDigest};
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant};
use super::terms::Tcb;
use super::{admin, rfc3339};
use crate::error::CliError;
use crate::row::Entry;

/// Revoke chips, measurements, workloads, guests, firmware or signers: nothing is released to them, whoever admits them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs revoke workload 5f70bf18… --tenant acme --reason 'key leaked'
  coffer kbs revoke tcb Milan:snp=23
  coffer kbs revoke list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    admin!("chip": ChipArgs => chip),
    admin!("measurement": MeasurementArgs => measurement),
    admin!("workload": WorkloadArgs => workload),
    admin!("report-id": ReportIdArgs => report_id),
    admin!("tcb": TcbArgs => tcb),
    admin!("signer": SignerArgs => signer),
    admin!("list": ListArgs => list),
    admin!("remove": RemoveArgs => remove),
];

/// For whom, and why.
#[derive(Debug, clap::Args)]
struct Scope {
    /// For guests of this tenant alone [default: of every tenant].
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Why, for whoever reads the trail.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Revoke a processor.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Evidence that shows no chip is refused while any chip is revoked, unless the broker's configuration waives it by name.

Examples:
  coffer kbs guests --json
  coffer kbs revoke chip 5f70bf18… --reason 'left the data centre'"
)]
struct ChipArgs {
    /// CHIP_ID, 128 hex digits; of Turin the 16 digits of its certificate's hwID do, too.
    #[arg(value_parser = ChipId::of_text)]
    chip: ChipId,
    #[command(flatten)]
    scope: Scope,
}

fn chip(args: &ChipArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    revoke("chip", &args.chip.to_string(), &args.scope, broker)
}

/// Revoke a launch measurement, also where a signed manifest lists it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs revoke measurement 25860fd9… --tenant acme")]
struct MeasurementArgs {
    /// 96 hex digits.
    measurement: Measurement,
    #[command(flatten)]
    scope: Scope,
}

fn measurement(args: &MeasurementArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    revoke("measurement", &args.measurement.to_string(), &args.scope, broker)
}

/// Revoke a workload.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs revoke workload 5f70bf18… --reason 'key leaked'")]
struct WorkloadArgs {
    /// Digest of its spec, 64 hex digits.
    workload: WorkloadDigest,
    #[command(flatten)]
    scope: Scope,
}

fn workload(args: &WorkloadArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    revoke("workload", &args.workload.to_string(), &args.scope, broker)
}

/// Revoke one guest; the same workload launched again is another.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs revoke report-id 5f70bf18…")]
struct ReportIdArgs {
    /// REPORT_ID, 64 hex digits; `coffer kbs guests --json` shows it.
    report_id: ReportId,
    #[command(flatten)]
    scope: Scope,
}

fn report_id(args: &ReportIdArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    revoke("report-id", &args.report_id.to_string(), &args.scope, broker)
}

/// Revoke firmware of a product at these levels and below.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Touched is whose REPORTED_TCB is at or below each level that is named; a level that is not named may be any.

Examples:
  coffer kbs revoke tcb Milan:snp=23
  coffer kbs revoke tcb Genoa:snp=21,microcode=71 --tenant acme"
)]
struct TcbArgs {
    /// Product and levels: fmc, bootloader, tee, snp, microcode.
    #[arg(value_name = "PRODUCT:PART=N,…", value_parser = levels)]
    tcb: String,
    #[command(flatten)]
    scope: Scope,
}

/// Levels as the broker reads them: what it would refuse is refused here.
fn levels(text: &str) -> Result<String, String> {
    text.parse::<Tcb>().map(|_| text.to_owned())
}

fn tcb(args: &TcbArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    revoke("tcb", &args.tcb, &args.scope, broker)
}

/// Revoke an author key or ID key.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs revoke signer 25860fd9… --reason 'build machine broken into'")]
struct SignerArgs {
    /// Its digest, 96 hex digits, as `coffer id-key show` prints it.
    signer: KeyDigest,
    #[command(flatten)]
    scope: Scope,
}

fn signer(args: &SignerArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    revoke("signer", &args.signer.to_string(), &args.scope, broker)
}

fn revoke(kind: &str, value: &str, scope: &Scope, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let Scope { tenant, reason } = scope;
    let (tenant, reason) = (tenant.as_deref(), reason.as_deref());
    let (added, recalled) = broker.ask(async |client| client.revoke(tenant, kind, value, reason).await)?;
    let row = json!({
        "kind": kind, "value": value, "tenant": tenant, "reason": reason, "added": added, "recalled": recalled,
    });
    broker.say(&row, || {
        let verb = if added { "revoked" } else { "was revoked already" };
        format!("{kind} {value} {verb} for {}; connections recalled: {recalled}", whose(tenant))
    });
    Ok(ExitCode::SUCCESS)
}

/// List revocations: those for every tenant, or those of one.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs revoke list --tenant acme")]
struct ListArgs {
    /// Those of this tenant [default: those for every tenant].
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let all = broker.ask(async |client| client.list_revocations(args.tenant.as_deref()).await)?;
    let rows: Vec<Value> = all
        .rows
        .iter()
        .map(|one| {
            // One that was mended has no time.
            let since = Some(one.since_unix).filter(|since| *since != 0).map(rfc3339);
            json!({
                "kind": one.kind, "since": since, "by": one.by, "reason": one.reason, "tenant": one.tenant,
                "value": one.value,
            })
        })
        .collect();
    let columns = ["kind", "since", "by", "reason", "tenant", "value"];
    Ok(broker.list_all_as(&columns, &rows, &all.damaged, |column, value| {
        (column == "tenant" && value.is_null()).then(|| "all".to_owned())
    }))
}

/// Take a revocation back: what admitted before admits again.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm", after_help = "Examples:\n  coffer kbs revoke remove tcb Milan:snp=23")]
struct RemoveArgs {
    /// chip, measurement, workload, report-id, tcb or signer.
    kind: String,
    /// As `list` shows it.
    value: String,
    /// As it was revoked [default: for every tenant].
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let RemoveArgs { kind, value, tenant } = args;
    let tenant = tenant.as_deref();
    if !broker.ask(async |client| client.remove_revocation(tenant, kind, value).await)? {
        let list = tenant.map_or_else(|| "revoke list".to_owned(), |tenant| of_tenant("revoke list", tenant));
        return Err(not_found(format!("{kind} {value} is not revoked for {}", whose(tenant)), &list));
    }
    broker.say(&json!({ "kind": kind, "value": value, "tenant": tenant, "removed": true }), || {
        format!("{kind} {value} is no longer revoked for {}", whose(tenant))
    });
    Ok(ExitCode::SUCCESS)
}

fn whose(tenant: Option<&str>) -> String {
    tenant.map_or("every tenant".to_owned(), |tenant| format!("tenant {tenant}"))
}
