//! `coffer kbs certificate`: what certificates and tokens of workloads say.

use std::process::ExitCode;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coffer_kbs_client::CertificateProfile;
use coffer_verifier::P384PublicKey;
use coffer_verifier::ear::{Issuer, Jwks, Word};
use serde_json::{Value, json};

use super::broker::{Broker, not_found, of_tenant};
use super::terms::{TermFlags, rules_json};
use super::{Tenant, admin};
use crate::error::{Class, Classify as _, CliError};
use crate::row::Entry;

/// Say what certificates and tokens of workloads say.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs certificate put web --dns web.acme.example --server --lifetime 1h
  coffer kbs certificate root > acme-root.pem
  coffer kbs certificate put billing --audience https://pay.example \\
      --issuer https://kbs.acme.example --lifetime 5m
  coffer kbs certificate jwks > jwks.json")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    admin!("put": PutArgs => put),
    admin!("list": ListArgs => list),
    admin!("remove": RemoveArgs => remove),
    admin!("root": RootArgs => root),
    admin!("jwks": JwksArgs => jwks),
];

/// Say what certificates of this name say, in place of what was said before.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs certificate put web --dns web.acme.example --server --lifetime 1h
  coffer kbs certificate put api --uri spiffe://acme.example/api --client \\
      --server --lifetime 20m --tenant acme
  coffer kbs certificate put billing --audience https://pay.example \\
      --issuer https://kbs.acme.example --lifetime 5m")]
struct PutArgs {
    /// Name by which guests ask for it.
    name: String,
    /// DNS name in it; may be repeated.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// URI in it, such as a SPIFFE id; may be repeated.
    #[arg(long, value_name = "URI")]
    uri: Vec<String>,
    /// It is for servers.
    #[arg(long)]
    server: bool,
    /// It is for clients.
    #[arg(long)]
    client: bool,
    /// Audience that guests may have tokens for, where their spec names it too; may be repeated, and stands in one profile alone.
    #[arg(long, value_name = "NAME", value_parser = Word::parse, requires = "issuer")]
    audience: Vec<Word>,
    /// Who tokens say has issued them: an https address, where `jwks` is to be found.
    #[arg(long, value_name = "URL", value_parser = Issuer::parse, requires = "audience")]
    issuer: Option<Issuer>,
    /// How long it is valid: `1h`, `20m` or seconds, one minute to one day.
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    lifetime: u32,
    #[command(flatten)]
    terms: TermFlags,
    #[command(flatten)]
    tenant: Tenant,
}

fn put(args: &PutArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let profile = CertificateProfile {
        tenant: args.tenant.tenant.clone(),
        name: args.name.clone(),
        dns: args.dns.clone(),
        uris: args.uri.clone(),
        server_auth: args.server,
        client_auth: args.client,
        lifetime_seconds: args.lifetime,
        terms: Some(args.terms.terms()),
        audiences: args.audience.iter().map(ToString::to_string).collect(),
        issuer: args.issuer.as_ref().map(ToString::to_string),
    };
    let mut value = row(&profile);
    let (added, _) = broker.ask(async |client| client.put_certificate_profile(profile).await)?;
    value["added"] = json!(added);
    broker.say(&value, || {
        let verb = if added { "created" } else { "replaced" };
        format!("certificate profile {} {verb}", args.name)
    });
    Ok(ExitCode::SUCCESS)
}

/// List profiles.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs certificate list --tenant acme")]
struct ListArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let answer = broker.ask(async |client| client.list_certificate_profiles(&args.tenant.tenant).await)?;
    let rows: Vec<_> = answer.profiles.iter().map(row).collect();
    let columns = ["name", "dns", "uris", "usage", "audiences", "lifetime_seconds", "policy", "allow_simulated"];
    Ok(broker.list_all(&columns, &rows, &answer.damaged))
}

/// Take a profile away; certificates already issued stay valid until they end.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm", after_help = "Examples:\n  coffer kbs certificate remove web")]
struct RemoveArgs {
    /// Name of the profile.
    name: String,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (name, tenant) = (&args.name, &args.tenant.tenant);
    if !broker.ask(async |client| client.remove_certificate_profile(tenant, name).await)? {
        return Err(not_found(
            format!("tenant {tenant} has no certificate profile {name}"),
            &of_tenant("certificate list", tenant),
        ));
    }
    broker.say(&json!({ "name": name, "removed": true }), || format!("certificate profile {name} removed"));
    Ok(ExitCode::SUCCESS)
}

/// Print the tenant's own certificate, by which others believe its workloads, in PEM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs certificate root --tenant acme > acme-root.pem")]
struct RootArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn root(args: &RootArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let tenant = &args.tenant.tenant;
    let root = broker.ask(async |client| client.list_certificate_profiles(tenant).await)?.root;
    if root.is_empty() {
        return Err(not_found(
            format!("tenant {tenant} has no certificate key: put a profile first"),
            &of_tenant("certificate list", tenant),
        ));
    }
    let body = STANDARD.encode(&root);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----", lines.join("\n"));
    if broker.json() {
        broker.say(&json!({ "tenant": tenant, "certificate": pem }), String::new);
    } else {
        println!("{pem}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Print the key set that tokens of the tenant's are verified with (`coffer token verify --jwks`), for the issuer's address.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs certificate jwks --tenant acme > jwks.json")]
struct JwksArgs {
    #[command(flatten)]
    tenant: Tenant,
}

fn jwks(args: &JwksArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let tenant = &args.tenant.tenant;
    let pem = broker.ask(async |client| client.list_certificate_profiles(tenant).await)?.token_key;
    if pem.is_empty() {
        let message = format!("tenant {tenant} has no key of tokens: put a profile with --audience first");
        return Err(not_found(message, "certificate list"));
    }
    // It is JSON for people and for programs.
    print!("{}", Jwks::new([P384PublicKey::from_pem(&pem).class(Class::Internal)?]).to_json());
    Ok(ExitCode::SUCCESS)
}

fn seconds(text: &str) -> Result<u32, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let number: u32 = number.parse().map_err(|_| "expected a time like 1h, 20m or 600")?;
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 1,
    };
    let seconds = number.checked_mul(unit).filter(|all| (60..=86_400).contains(all));
    seconds.ok_or_else(|| "expected one minute to one day".into())
}

fn row(profile: &CertificateProfile) -> Value {
    let terms = profile.terms.clone().unwrap_or_default();
    let usage = [("server", profile.server_auth), ("client", profile.client_auth)];
    let usage: Vec<_> = usage.into_iter().filter_map(|(word, on)| on.then_some(word)).collect();
    json!({
        "name": profile.name, "tenant": profile.tenant, "dns": profile.dns, "uris": profile.uris, "usage": usage,
        "audiences": profile.audiences, "issuer": profile.issuer, "lifetime_seconds": profile.lifetime_seconds,
        "policy": terms.policy, "allow_simulated": terms.allow_simulated,
        "rules": rules_json(&terms.rules.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_a_minute_to_a_day() {
        assert_eq!(seconds("1h"), Ok(3600));
        assert_eq!(seconds("20m"), Ok(1200));
        assert_eq!(seconds("600"), Ok(600));
        assert_eq!(seconds("1d"), Ok(86_400));
        for bad in ["", "h", "59", "2d", "-1h", "1w"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
