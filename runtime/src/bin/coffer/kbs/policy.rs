//! `coffer kbs policy`: release policies that a tenant keeps at the broker.

use std::path::PathBuf;
use std::process::ExitCode;

use coffer_kbs_client::PolicyInfo;
use coffer_kbs_client::kbs::admin::v1::{TestPolicyRequest, TestedDecision};
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant, read};
use super::{Tenant, admin, parse_time, rfc3339};
use crate::error::{Class, Classify as _, CliError};
use crate::row::Entry;

/// Keep release policies at the broker, by name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs policy put web --file web.rego
  coffer kbs secret put default/app/password --file value --policy web
  coffer kbs policy list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    admin!("put": PutArgs => put),
    admin!("get": GetArgs => get),
    admin!("list": ListArgs => list),
    admin!("remove": RemoveArgs => remove),
    admin!("test": TestArgs => test),
];

/// Keep a policy, in place of one of its name.
///
/// Whatever names it is decided by the new text from the next release on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs policy put web --file web.rego
  coffer kbs policy put web --tenant acme < web.rego")]
struct PutArgs {
    /// Name, by which secrets, sealing contexts and certificate profiles refer to it.
    name: String,
    /// Rego file; `-` is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    tenant: Tenant,
}

fn put(args: &PutArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (name, tenant, text) = (&args.name, &args.tenant.tenant, text(&args.file)?);
    let answer = broker.ask(async |client| client.put_policy(tenant, name, &text).await)?;
    let mut value = row(&answer.policy.clone().unwrap_or_default(), tenant);
    value["added"] = json!(answer.added);
    value["used"] = json!(answer.used);
    broker.say(&value, || {
        let verb = if answer.added { "kept" } else { "replaced" };
        let used = match answer.used.as_slice() {
            [] => "nothing names it yet".to_owned(),
            used => format!("it decides for {}", used.join(", ")),
        };
        format!("policy {name} of tenant {tenant} {verb}; {used}")
    });
    Ok(ExitCode::SUCCESS)
}

/// Print the text of a policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs policy get web > web.rego")]
struct GetArgs {
    /// Name.
    name: String,
    #[command(flatten)]
    tenant: Tenant,
}

fn get(args: &GetArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (name, tenant) = (&args.name, &args.tenant.tenant);
    let found = broker.ask(async |client| client.policy(tenant, name).await)?;
    let Some((info, text)) = found else { return Err(none(tenant, name)) };
    if broker.json() {
        let mut value = row(&info, tenant);
        value["text"] = json!(text);
        println!("{value}");
    } else {
        // As it was put: the broker takes no text with anything in it that acts on a terminal.
        print!("{text}");
    }
    Ok(ExitCode::SUCCESS)
}

/// List policies.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs policy list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let tenant = &args.tenant.tenant;
    let all = broker.ask(async |client| client.list_policies(tenant).await)?;
    let mut rows: Vec<_> = all.configured.iter().map(|name| json!({ "name": name, "kept_by": "the broker" })).collect();
    rows.extend(all.policies.iter().map(|info| row(info, tenant)));
    Ok(broker.list_all(&["name", "kept_by", "put", "by", "length", "sha256"], &rows, &all.damaged))
}

/// Remove a policy that nothing names any more.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm", after_help = "Examples:\n  coffer kbs policy remove web")]
struct RemoveArgs {
    /// Name.
    name: String,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (name, tenant) = (&args.name, &args.tenant.tenant);
    if !broker.ask(async |client| client.remove_policy(tenant, name).await)? {
        return Err(none(tenant, name));
    }
    broker.say(&json!({ "name": name, "removed": true }), || format!("policy {name} removed"));
    Ok(ExitCode::SUCCESS)
}

/// Try a policy on what was decided: who would be refused tomorrow, and who released.
///
/// Nothing is released or changed. The broker keeps what policies saw of the last 1000 decisions of a tenant. What the policy does not decide
/// (evidence, admission, typed rules) stays as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs policy test web --file next.rego
  coffer kbs policy test web --file next.rego --since 2027-01-01T00:00:00Z
  coffer kbs policy test default --file next.rego --all --tenant acme")]
struct TestArgs {
    /// Policy under which it was decided; without --file also what is tried, as it is now.
    name: String,
    /// What is tried in its place: a Rego file; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Decisions from this time on alone, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<i64>,
    /// What was decided under other policies, too.
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    tenant: Tenant,
}

fn test(args: &TestArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let request = TestPolicyRequest {
        tenant: args.tenant.tenant.clone(),
        name: args.name.clone(),
        text: args.file.as_deref().map(text).transpose()?,
        since_unix: args.since,
        all: args.all,
    };
    let answer = broker.ask(async |client| client.test_policy(request).await)?;
    let rows: Vec<_> = answer.decisions.iter().map(tested).collect();
    let changes =
        |after: &str| answer.decisions.iter().filter(|one| one.after == after && one.before != one.after).count();
    let (refused, released) = (changes("refused"), changes("released"));
    if broker.json() {
        let value = json!({
            "decisions": rows, "would_be_refused": refused, "would_be_released": released,
            "left_out": answer.left_out, "not_believed": answer.not_believed, "missing": answer.missing,
            "archived": answer.archived,
        });
        println!("{value}");
        return Ok(ExitCode::SUCCESS);
    }
    let columns = ["id", "time", "what", "report_id", "before", "after", "reasons"];
    broker.list_as(&columns, &rows, |column, value| match value {
        // Reasons have commas of their own.
        Value::Array(words) if column == "reasons" => {
            Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; "))
        }
        _ => None,
    });
    let decisions = if rows.len() == 1 { "decision" } else { "decisions" };
    println!("{} {decisions}: {refused} would be refused, {released} released", rows.len());
    for (count, why) in [
        (answer.left_out, "were not tried: it took too long"),
        (answer.not_believed, "were not tried: their record is not as the broker wrote it"),
        (answer.missing, "were not tried: their record is gone from the broker's database"),
    ] {
        if count > 0 {
            println!("{count} more {why}");
        }
    }
    if answer.archived > 0 {
        println!("audit lines 1 to {} are archived: what was decided there was not tried", answer.archived);
    }
    Ok(ExitCode::SUCCESS)
}

fn tested(one: &TestedDecision) -> Value {
    json!({
        "id": one.id, "sequence": one.sequence, "time": one.time, "event": one.event, "what": one.what,
        "policy": one.policy, "measurement": one.measurement, "workload_digest": one.workload_digest,
        "report_id": one.report_id, "before": one.before, "after": one.after, "reasons": one.reasons,
    })
}

fn none(tenant: &str, name: &str) -> CliError {
    let message =
        format!("tenant {tenant} keeps no policy {name}; one of the broker's configuration has its text there");
    not_found(message, &of_tenant("policy list", tenant))
}

fn text(file: &std::path::Path) -> Result<String, CliError> {
    String::from_utf8(read(file)?).class_while(Class::Config, file.display())
}

fn row(info: &PolicyInfo, tenant: &str) -> Value {
    if info.put_unix == 0 {
        // The shipped one, which nobody put.
        return json!({
            "name": info.name, "kept_by": "the broker", "sha256": hex::encode(&info.sha256), "length": info.length,
        });
    }
    json!({
        "name": info.name, "tenant": tenant, "kept_by": "the tenant", "sha256": hex::encode(&info.sha256),
        "length": info.length, "by": info.by, "put": rfc3339(info.put_unix),
    })
}
