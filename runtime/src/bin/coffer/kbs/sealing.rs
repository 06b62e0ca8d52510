//! `coffer kbs sealing`: on what terms sealing keys and generations are released.

use std::process::ExitCode;

use coffer_kbs_client::{SealingContext, SealingPolicy, describe_rules};
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant};
use super::terms::{TermFlags, rules_json};
use super::{Tenant, admin, rfc3339};
use crate::error::CliError;
use crate::row::Entry;

/// Say on what terms sealing keys are released.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs sealing put backup --policies workload
  coffer kbs sealing list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] =
    &[admin!("put": PutArgs => put), admin!("list": ListArgs => list), admin!("remove": RemoveArgs => remove)];

/// Say on what terms a context gives keys, in place of what was said before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs sealing put backup --policies workload
  coffer kbs sealing put db --policies measurement,signer --policy strict \\
      --tenant acme")]
struct PutArgs {
    /// Context, as guests name it.
    context: String,
    /// Sealing policies whose keys it gives: chip, measurement, workload, signer.
    #[arg(long, value_delimiter = ',', required = true, value_name = "POLICY,…")]
    policies: Vec<SealingPolicy>,
    #[command(flatten)]
    terms: TermFlags,
    #[command(flatten)]
    tenant: Tenant,
}

fn put(args: &PutArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let context = SealingContext {
        tenant: args.tenant.tenant.clone(),
        context: args.context.clone().into_bytes(),
        policies: args.policies.iter().map(ToString::to_string).collect(),
        terms: Some(args.terms.terms()),
        created_unix: 0,
    };
    let (now, was) = (words(&context), row(&context));
    let before = broker.ask(async |client| client.put_sealing_context(context).await)?;
    let mut value = was;
    // The broker knows when it was made; `list` shows it.
    value.as_object_mut().and_then(|value| value.remove("created"));
    value["before"] = before.as_ref().map_or(Value::Null, row);
    broker.say(&value, || match &before {
        None => format!("sealing context {} created: {now}", args.context),
        Some(before) if words(before) == now => format!("sealing context {} is as it was: {now}", args.context),
        Some(before) => format!("sealing context {}: {now}; was {}", args.context, words(before)),
    });
    Ok(ExitCode::SUCCESS)
}

/// List contexts.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs sealing list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let contexts = broker.ask(async |client| client.list_sealing_contexts(&args.tenant.tenant).await)?;
    let rows: Vec<_> = contexts.rows.iter().map(row).collect();
    Ok(broker.list_all(&["context", "policies", "policy", "allow_simulated", "created"], &rows, &contexts.damaged))
}

/// Take a context away: it gives no keys any more. Put again it gives the same.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm", after_help = "Examples:\n  coffer kbs sealing remove backup")]
struct RemoveArgs {
    /// Context, as guests name it.
    context: String,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (context, tenant) = (&args.context, &args.tenant.tenant);
    if !broker.ask(async |client| client.remove_sealing_context(tenant, context.as_bytes()).await)? {
        return Err(not_found(
            format!("tenant {tenant} has no sealing context {context}"),
            &of_tenant("sealing list", tenant),
        ));
    }
    broker.say(&json!({ "context": context, "removed": true }), || format!("sealing context {context} removed"));
    Ok(ExitCode::SUCCESS)
}

fn words(context: &SealingContext) -> String {
    let terms = context.terms.clone().unwrap_or_default();
    let simulated = if terms.allow_simulated { "allowed" } else { "not allowed" };
    let (policies, policy) = (context.policies.join(","), terms.policy.unwrap_or_default());
    let rules = describe_rules(&terms.rules.unwrap_or_default());
    format!("keys of policy {policies}; policy {policy}; simulated evidence {simulated}; rules {rules}")
}

fn row(context: &SealingContext) -> Value {
    let terms = context.terms.clone().unwrap_or_default();
    json!({
        "context": String::from_utf8_lossy(&context.context), "tenant": context.tenant,
        "policies": context.policies, "policy": terms.policy, "allow_simulated": terms.allow_simulated,
        "rules": rules_json(&terms.rules.unwrap_or_default()),
        "created": (context.created_unix != 0).then(|| rfc3339(context.created_unix)),
    })
}
