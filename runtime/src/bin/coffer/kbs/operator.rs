//! `coffer kbs admin`: who may ask a broker, and what.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use coffer_kbs_client::{AdminProfile, Grant};
use coffer_ratls::Identity;
use coffer_verifier::abi::SpkiDigest;
use serde_json::json;

use super::admin;
use super::broker::{Broker, not_found};
use crate::error::{Class, Classify as _, CliError};
use crate::row::Entry;

/// Say who may ask a broker, and what.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs admin add alice --role operator@acme --new-profile alice.toml
  coffer kbs admin list
  coffer kbs admin confirm-restore")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    admin!("add": AddArgs => add),
    admin!("list": ListArgs => list),
    admin!("remove": RemoveArgs => remove),
    admin!("pin": PinArgs => pin),
    admin!("confirm-restore": ConfirmArgs => confirm),
];

/// Let somebody in, in the roles given; a key that is there gets these in place of its own.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs admin add alice --role operator@acme --role auditor \\
      --new-profile alice.toml
  coffer kbs admin add bob --role owner --key 5f70bf18…")]
struct AddArgs {
    /// Name in the audit trail.
    name: String,
    /// owner, policy-author, operator or auditor, of one tenant (`operator@acme`) or of all; may be repeated.
    #[arg(long, required = true, value_name = "ROLE[@TENANT]")]
    role: Vec<RoleWord>,
    /// SHA-256 of its SubjectPublicKeyInfo, 64 hex digits.
    #[arg(long, value_name = "HEX")]
    key: Option<SpkiDigest>,
    /// Make a key, and write a profile with it to this new file: move it to where the operator works.
    #[arg(long, value_name = "FILE")]
    new_profile: Option<PathBuf>,
}

fn add(args: &AddArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let grants: Vec<Grant> = args.role.iter().map(|one| one.0.clone()).collect();
    let made = match (&args.key, &args.new_profile) {
        (Some(key), _) => *key,
        (None, Some(path)) => {
            let identity = Identity::generate(&args.name).class_while(Class::Internal, "making a key")?;
            let key = identity.spki();
            let (profile, _) = broker.profile()?;
            let new = AdminProfile { address: profile.address.clone(), pins: profile.pins.clone(), identity };
            // Written before it is admitted: a key that is nowhere must not be let in.
            new.write(path).map_err(|error| CliError::caused(Class::Config, &error).hint(error.hint()))?;
            key
        }
        (None, None) => return Err(CliError::new(Class::Usage, "no key given").hint("use --key or --new-profile")),
    };
    let name = &args.name;
    let added = broker.ask(async |client| client.add_admin(name, &made, &grants).await).inspect_err(|_| {
        if let Some(path) = &args.new_profile {
            let _ = std::fs::remove_file(path);
        }
    })?;
    let words: Vec<_> = grants.iter().map(said).collect();
    let row = json!({ "name": name, "key": made, "grants": words, "added": added, "profile": args.new_profile });
    broker.say(&row, || {
        let verb = if added { "let in" } else { "changed" };
        format!("{name} {verb} as {}, key {made}", words.join(", "))
    });
    Ok(ExitCode::SUCCESS)
}

/// List operators.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs admin list --tenant acme")]
struct ListArgs {
    /// Those with a role for this tenant, and these roles alone.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let admins = broker.ask(async |client| client.list_admins(args.tenant.as_deref()).await)?;
    let rows: Vec<_> = admins
        .rows
        .iter()
        .map(|one| {
            let grants: Vec<_> = one.grants.iter().map(said).collect();
            let from = if one.configured { "configuration" } else { "broker" };
            json!({ "name": one.name, "grants": grants, "from": from, "key": one.key })
        })
        .collect();
    Ok(broker.list_all(&["name", "grants", "from", "key"], &rows, &admins.damaged))
}

/// Take somebody away, at once: open connections too.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "rm", after_help = "Examples:\n  coffer kbs admin remove alice")]
struct RemoveArgs {
    /// Name in the trail, or key.
    who: String,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let who = &args.who;
    let removed = broker.ask(async |client| {
        let admins = client.list_admins(None).await?.rows;
        let found = admins.iter().find(|one| one.name == *who || one.key.to_string() == *who);
        match found {
            Some(one) => client.remove_admin(&one.key).await.map(|existed| existed.then_some(one.key)),
            None => Ok(None),
        }
    })?;
    let Some(key) = removed else {
        return Err(not_found(format!("there is no operator {who}"), "admin list"));
    };
    broker.say(&json!({ "name": who, "key": key, "removed": true }), || format!("{who} removed, key {key}"));
    Ok(ExitCode::SUCCESS)
}

/// Pin these keys of the operators' listener in your profile, in place of those in it.
///
/// The present one and, before the broker switches to it, the next: `coffer-kbs server-key show` prints both. The broker is asked: a profile
/// that would not reach it stays as it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs admin pin \\
      5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef \\
      9b1f4c7a02d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e
  coffer kbs admin pin --profile alice.toml \\
      9b1f4c7a02d3e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e")]
struct PinArgs {
    /// SHA-256 of the listener's SubjectPublicKeyInfo, 64 hex digits: the present key, and the next.
    #[arg(required = true, num_args = 1..=2, value_name = "HEX")]
    keys: Vec<SpkiDigest>,
}

fn pin(args: &PinArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (profile, path) = broker.profile()?;
    let (pins, before) = (args.keys.clone(), profile.pins.clone());
    broker.reach(&pins)?;
    // Read anew: an address that a flag gives is not the profile's.
    let kept = AdminProfile::read(path).map_err(|error| CliError::caused(Class::Config, &error).hint(error.hint()))?;
    AdminProfile { pins: pins.clone(), ..kept }.replace(path).class(Class::Config)?;
    broker.say(&json!({ "profile": path, "pins": pins, "before": before }), || {
        let pins: Vec<_> = pins.iter().map(ToString::to_string).collect();
        format!("{} pins {}", path.display(), pins.join(" and "))
    });
    Ok(ExitCode::SUCCESS)
}

/// Say that you have looked at what a restore gave up: sealing generations go on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs admin confirm-restore")]
struct ConfirmArgs {}

fn confirm(_: &ConfirmArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let confirmed = broker.ask(async |client| client.confirm_restored().await)?;
    broker.say(&json!({ "confirmed": confirmed }), || {
        if confirmed { "restore confirmed: generations go on".into() } else { "there is no restore to confirm".into() }
    });
    Ok(ExitCode::SUCCESS)
}

fn said(grant: &Grant) -> String {
    match &grant.tenant {
        Some(tenant) => format!("{}@{tenant}", grant.role),
        None => grant.role.clone(),
    }
}

/// A role, and for whom.
#[derive(Clone, Debug)]
struct RoleWord(Grant);

impl FromStr for RoleWord {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (role, tenant) = match text.split_once('@') {
            Some((role, tenant)) => (role, Some(tenant)),
            None => (text, None),
        };
        if !["owner", "policy-author", "operator", "auditor"].contains(&role) || tenant == Some("") {
            return Err("expected owner, policy-author, operator or auditor, and @TENANT for one tenant alone".into());
        }
        Ok(Self(Grant { role: role.to_owned(), tenant: tenant.map(str::to_owned) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_of_one_tenant_or_of_all() {
        let word = |text: &str| text.parse::<RoleWord>().map(|one| said(&one.0));
        assert_eq!(word("operator@acme").as_deref(), Ok("operator@acme"));
        assert_eq!(word("owner").as_deref(), Ok("owner"));
        assert!(word("root").is_err() && word("owner@").is_err() && word("").is_err());
    }
}
