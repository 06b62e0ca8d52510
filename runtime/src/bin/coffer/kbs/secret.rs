//! `coffer kbs secret`: values of secrets go in, and never come back.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_kbs_client::kbs::admin::v1::Rules;
use coffer_kbs_client::{
    Expected, Labels, PathError, PutSecret, ResourcePath, SecretInfo, SecretUpdate, SecretVersion, Stated,
    describe_rules,
};
use coffer_runtime::boxes::unix_ms;
use coffer_verifier::{Expiry, UnixTime};
use secrecy::SecretBox;
use serde_json::{Value, json};

use super::broker::{Broker, end, not_found, of_tenant, read};
use super::terms::{RuleFlags, rules_json};
use super::{Tenant, admin, expiry, parse_time, rfc3339};
use crate::error::{Class, CliError};
use crate::row::Entry;

/// Put, list, describe and remove secrets.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  printf %s hunter2 | coffer kbs secret put default/app/password
  coffer kbs secret get-meta default/app/password
  coffer kbs secret list")]
pub struct Args {}

/// Its commands.
pub const COMMANDS: &[Entry] = &[
    admin!("put": PutArgs => put),
    admin!("get-meta": MetaArgs => meta),
    admin!("list": ListArgs => list),
    admin!("update": UpdateArgs => update),
    admin!("remove": RemoveArgs => remove),
    admin!("undelete": UndeleteArgs => undelete),
    admin!("destroy": DestroyArgs => destroy),
];

/// Longest value, as the broker has it.
const VALUE_LIMIT: usize = 1024 * 1024;

/// Store a value as the next version of a secret.
///
/// What no flag says is as it was in the version before, its end too. Weaker terms than before take a policy-author.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  printf %s hunter2 | coffer kbs secret put default/app/password
  coffer kbs secret put kbs:///default/app/key --file key.bin \\
      --expected-version 0
  coffer kbs secret put default/ci/token --file token --allow-simulated \\
      --label team=ci --expires 2027-01-01T00:00:00Z
  coffer kbs secret put default/ci/token --file token \\
      --rule-tcb Milan:snp=24,microcode=219")]
struct PutArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    /// File with the value, at most 1 MiB; `-` is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    tenant: Tenant,
    /// Simulated evidence may have it, where the broker lists the simulator's root for the tenant.
    #[arg(long, overrides_with = "no_allow_simulated")]
    allow_simulated: bool,
    /// Simulated evidence may not have it any more.
    #[arg(long)]
    no_allow_simulated: bool,
    /// Store only if this version is current; 0: only if there is none.
    #[arg(long, value_name = "N")]
    expected_version: Option<u64>,
    /// Release policy the broker knows by this name.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    #[command(flatten)]
    rules: RuleFlags,
    /// No typed rules any more.
    #[arg(long)]
    no_rules: bool,
    /// Label, in place of all that were there; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label, conflicts_with = "no_labels")]
    label: Vec<(String, String)>,
    /// No labels any more.
    #[arg(long)]
    no_labels: bool,
    /// Time from which this version is not released, RFC 3339. Left out: that of the version before, if it has one.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "no_expires")]
    expires: Option<i64>,
    /// It does not end, whatever the version before has.
    #[arg(long)]
    no_expires: bool,
}

fn put(args: &PutArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let value = SecretBox::new(Box::new(value(&args.file)?));
    let put = PutSecret {
        tenant: &args.tenant.tenant,
        path: &args.path,
        value: &value,
        allow_simulated: (args.allow_simulated || args.no_allow_simulated).then_some(args.allow_simulated),
        expected: match args.expected_version {
            None => Expected::Any,
            Some(0) => Expected::Absent,
            Some(version) => Expected::Version(version),
        },
        policy: args.policy.as_deref().unwrap_or_default(),
        rules: rules(&args.rules, args.no_rules)?,
        labels: labels(&args.label, args.no_labels)?,
        expires: said_expiry(args.expires, args.no_expires),
    };
    let path = &args.path;
    let lost = format!("it may have been stored; `coffer kbs {}` shows it", get_meta(path, &args.tenant.tenant));
    let stored = broker.ask_or(&lost, async |client| client.put_secret(put).await).map_err(begins_anew)?;
    let mut row = stated(&stored.now);
    row["path"] = json!(path.as_str());
    row["before"] = stored.before.as_ref().map_or(Value::Null, stated);
    broker.say(&row, || format!("{path} {}", stored.changes().join("; ")));
    Ok(ExitCode::SUCCESS)
}

/// Why a put takes a policy-author, where it does: mostly because it would begin anew what was deleted.
fn begins_anew(error: CliError) -> CliError {
    if error.class != Class::Refused || !error.message.contains("it takes") || !error.message.contains("policy-author")
    {
        return error;
    }
    let before = error.hint.as_deref().unwrap_or_default();
    let hint = format!(
        "a put on weaker terms than before takes a policy-author beside the operator, also one on a deleted secret, which begins with the \
         shipped policy and no rules: `coffer kbs secret undelete` first keeps its terms; or {before}"
    );
    error.hint(hint)
}

/// A value of a file. One that is too large is refused before it goes anywhere.
fn value(file: &Path) -> Result<Vec<u8>, CliError> {
    const HINT: &str = "encrypt it, keep it elsewhere, and put its key here";
    let value = read(file).map_err(|error| {
        let too_large = std::fs::metadata(file).is_ok_and(|there| there.len() > VALUE_LIMIT as u64);
        if too_large { error.hint(HINT) } else { error }
    })?;
    if value.len() > VALUE_LIMIT {
        let message = format!("value-too-large: the value has {} bytes, a secret at most {VALUE_LIMIT}", value.len());
        return Err(CliError::new(Class::Usage, message).hint(HINT));
    }
    Ok(value)
}

/// An expiry as the flags have it; nothing: as it was.
fn said_expiry(at: Option<i64>, never: bool) -> Option<Expiry> {
    if never { Some(Expiry::Never) } else { at.map(|at| expiry(Some(at))) }
}

/// The command that shows every version of a secret.
fn get_meta(path: &ResourcePath, tenant: &str) -> String {
    format!("secret get-meta {path} --tenant {tenant}")
}

/// Describe a secret and each of its versions, without a value.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs secret get-meta default/app/password --json")]
struct MetaArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    #[command(flatten)]
    tenant: Tenant,
}

fn meta(args: &MetaArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (path, tenant) = (&args.path, &args.tenant.tenant);
    let meta = broker.ask(async |client| client.secret_meta(tenant, path).await)?;
    if meta.secret.is_none() && meta.versions.is_empty() && meta.damaged.is_empty() {
        return Err(not_found(format!("tenant {tenant} has no secret {path}"), &of_tenant("secret list", tenant)));
    }
    for damage in &meta.damaged {
        eprintln!("coffer: {}", coffer_rim::foreign(damage));
    }
    let (least, gone) =
        meta.secret.as_ref().map_or((0, false), |one| (one.minimum_version, one.deleted_unix.is_some()));
    let versions: Vec<_> = meta.versions.iter().map(|one| version(one, least, gone)).collect();
    if broker.json() {
        let mut row = meta.secret.as_ref().map_or_else(|| json!({ "path": path.as_str() }), info);
        row["versions"] = versions.into();
        row["damaged"] = json!(meta.damaged);
        broker.say(&row, String::new);
    } else {
        if let Some(row) = meta.secret.as_ref().map(info) {
            let (least, labels) = (&row["minimum_version"], label_words(&row["labels"]));
            println!("{}", coffer_rim::foreign(&format!("{path}  minimum version {least}  labels {labels}")));
        }
        let columns =
            ["version", "state", "length", "policy", "allow_simulated", "rules_text=rules", "created", "expires"];
        broker
            .list_as(&columns, &versions, |column, value| value.as_str().filter(|_| column == "rules_text").map(short));
    }
    Ok(end(&meta.damaged))
}

/// List secrets; values never come back.
#[derive(Debug, clap::Args)]
#[command(visible_alias = "ls", after_help = "Examples:\n  coffer kbs secret list --tenant acme --json")]
struct ListArgs {
    /// Those that were deleted, too.
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    tenant: Tenant,
}

fn list(args: &ListArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let secrets = broker.ask(async |client| client.list_secrets(&args.tenant.tenant, args.all).await)?;
    let rows: Vec<_> = secrets.rows.iter().map(info).collect();
    let columns = [
        "path",
        "version",
        "minimum_version=minimum",
        "state",
        "length",
        "policy",
        "allow_simulated",
        "labels",
        "created",
    ];
    let labels = |column: &str, value: &Value| (column == "labels").then(|| label_words(value));
    Ok(broker.list_all_as(&columns, &rows, &secrets.damaged, labels))
}

/// Say anew on what terms a version is released, which versions are, or the labels; the value and the rest stay.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  coffer kbs secret update default/app/password --minimum-version 3
  coffer kbs secret update default/app/password --policy web --no-rules
  coffer kbs secret update default/app/password --version 2 \\
      --expires 2027-01-01T00:00:00Z
  coffer kbs secret update default/app/password --label team=web --label tier=1
  coffer kbs secret update default/app/password --no-labels")]
struct UpdateArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    /// Versions below are not released any more.
    #[arg(long, value_name = "N")]
    minimum_version: Option<u64>,
    /// Label, in place of all that were there; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = label, conflicts_with = "no_labels")]
    label: Vec<(String, String)>,
    /// No labels any more.
    #[arg(long)]
    no_labels: bool,
    /// Whose terms are said, in place of the current version's.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Release policy the broker knows by this name.
    #[arg(long, value_name = "NAME")]
    policy: Option<String>,
    /// Simulated evidence may have it, where the broker lists the simulator's root for the tenant.
    #[arg(long, overrides_with = "no_allow_simulated")]
    allow_simulated: bool,
    /// Simulated evidence may not have it any more.
    #[arg(long)]
    no_allow_simulated: bool,
    #[command(flatten)]
    rules: RuleFlags,
    /// No typed rules any more.
    #[arg(long)]
    no_rules: bool,
    /// Time from which the version is not released, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with = "no_expires")]
    expires: Option<i64>,
    /// It does not end.
    #[arg(long)]
    no_expires: bool,
    #[command(flatten)]
    tenant: Tenant,
}

impl UpdateArgs {
    fn update(&self) -> Result<SecretUpdate, CliError> {
        let expires = said_expiry(self.expires, self.no_expires);
        let update = SecretUpdate {
            version: self.version,
            minimum_version: self.minimum_version,
            labels: labels(&self.label, self.no_labels)?,
            allow_simulated: (self.allow_simulated || self.no_allow_simulated).then_some(self.allow_simulated),
            policy: self.policy.clone(),
            rules: rules(&self.rules, self.no_rules)?,
            expires,
        };
        let terms = update.allow_simulated.is_some()
            || update.policy.is_some()
            || update.rules.is_some()
            || update.expires.is_some();
        if !terms && self.version.is_some() {
            return Err(CliError::new(Class::Usage, "nothing of that version is to be changed")
                .hint("say what: --policy, --allow-simulated, a rule or --expires; --minimum-version and --label are of the whole secret, without --version"));
        }
        if !terms && update.minimum_version.is_none() && update.labels.is_none() {
            return Err(CliError::new(Class::Usage, "nothing is to be changed").hint(
                "say what: --policy, --allow-simulated, a rule, --expires, --minimum-version, --label or --no-labels",
            ));
        }
        Ok(update)
    }
}

fn update(args: &UpdateArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (path, tenant, update) = (&args.path, &args.tenant.tenant, args.update()?);
    let Some(updated) = broker.ask(async |client| client.update_secret(tenant, path, update).await)? else {
        return Err(none_of(path, tenant, args.version, "update"));
    };
    let changes = updated.changes();
    let value = json!({
        "path": path.as_str(), "minimum_version": args.minimum_version, "updated": true, "changes": changes,
        "now": updated.now.as_ref().map(stated), "before": updated.before.as_ref().map(stated),
    });
    broker.say(&value, || {
        let version = updated.now.as_ref().map_or_else(String::new, |now| format!(" version {}", now.version));
        match changes.as_slice() {
            [] => format!("{path}{version} is as it was"),
            changes => format!("{path}{version} updated: {}", changes.join("; ")),
        }
    });
    Ok(ExitCode::SUCCESS)
}

/// No such secret, or no such version of it that anything can be done with.
fn none_of(path: &ResourcePath, tenant: &str, version: Option<u64>, to: &str) -> CliError {
    match version {
        Some(version) => {
            let message = format!("tenant {tenant} has no secret {path} with a version {version} to {to}");
            not_found(message, &get_meta(path, tenant))
        }
        None => not_found(format!("tenant {tenant} has no secret {path} to {to}"), &of_tenant("secret list", tenant)),
    }
}

/// Rules as the flags have them; nothing: as they were.
fn rules(flags: &RuleFlags, none: bool) -> Result<Option<Rules>, CliError> {
    match (flags.given(), none) {
        (Some(_), true) => {
            Err(CliError::new(Class::Usage, "--no-rules and a rule contradict each other").hint("give one of them"))
        }
        (None, true) => Ok(Some(Rules::default())),
        (given, false) => Ok(given),
    }
}

/// Delete a secret, or one version. `undelete` takes it back, `destroy` does not.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "rm",
    after_help = "Examples:
  coffer kbs secret remove default/app/password
  coffer kbs secret remove default/app/password --version 2"
)]
struct RemoveArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    /// This version alone.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    tenant: Tenant,
}

fn remove(args: &RemoveArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (path, tenant, version) = (&args.path, &args.tenant.tenant, args.version);
    if !broker.ask(async |client| client.delete_secret(tenant, path, version).await)? {
        return Err(none_of(path, tenant, version, "remove"));
    }
    let row = json!({ "path": path.as_str(), "version": version, "removed": true });
    broker.say(&row, || match version {
        Some(version) => format!("{path} version {version} removed"),
        None => format!("{path} removed"),
    });
    Ok(ExitCode::SUCCESS)
}

/// Take a removal back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs secret undelete default/app/password")]
struct UndeleteArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    /// This version alone.
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    #[command(flatten)]
    tenant: Tenant,
}

fn undelete(args: &UndeleteArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (path, tenant, version) = (&args.path, &args.tenant.tenant, args.version);
    if !broker.ask(async |client| client.undelete_secret(tenant, path, version).await)? {
        let list = version.map_or_else(|| of_tenant("secret list --all", tenant), |_| get_meta(path, tenant));
        return Err(not_found(format!("nothing of {path} of tenant {tenant} was removed"), &list));
    }
    broker.say(&json!({ "path": path.as_str(), "version": version, "undeleted": true }), || match version {
        Some(version) => format!("{path} version {version} is back"),
        None => format!("{path} is back"),
    });
    Ok(ExitCode::SUCCESS)
}

/// Destroy the value of one version: nothing brings it back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  coffer kbs secret destroy default/app/password --version 1")]
struct DestroyArgs {
    /// `repository/type/tag`, with or without `kbs:///`.
    #[arg(value_parser = path)]
    path: ResourcePath,
    /// Which version.
    #[arg(long, value_name = "N")]
    version: u64,
    #[command(flatten)]
    tenant: Tenant,
}

fn destroy(args: &DestroyArgs, broker: &Broker<'_>) -> Result<ExitCode, CliError> {
    let (path, tenant, version) = (&args.path, &args.tenant.tenant, args.version);
    if !broker.ask(async |client| client.destroy_secret(tenant, path, version).await)? {
        let message = format!("{path} of tenant {tenant} has no value in version {version}");
        return Err(not_found(message, &get_meta(path, tenant)));
    }
    broker.say(&json!({ "path": path.as_str(), "version": version, "destroyed": true }), || {
        format!("{path} version {version} destroyed")
    });
    Ok(ExitCode::SUCCESS)
}

/// Labels as the flags have them; nothing: as they were.
fn labels(given: &[(String, String)], none: bool) -> Result<Option<Labels>, CliError> {
    let labels: Labels = given.iter().cloned().collect();
    if labels.len() != given.len() {
        let twice = given.iter().enumerate().find(|(at, one)| given[..*at].iter().any(|before| before.0 == one.0));
        let name = twice.map(|(_, (name, _))| name.as_str()).unwrap_or_default();
        return Err(CliError::new(Class::Usage, format!("label {name} is given twice")).hint("give each name once"));
    }
    Ok((none || !labels.is_empty()).then_some(labels))
}

/// Labels in one cell.
fn label_words(labels: &Value) -> String {
    let words = labels.as_object().into_iter().flatten();
    let words = words.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let words = words.collect::<Vec<_>>().join(",");
    if words.is_empty() { "-".to_owned() } else { words }
}

/// Rules in one cell: of each long digest its beginning. `--json` has all of it.
fn short(text: &str) -> String {
    let word = |word: &str| {
        let digits = word.trim_end_matches(';');
        if digits.len() > 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return format!("{}…{}", &digits[..12], &word[digits.len()..]);
        }
        word.to_owned()
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.into(), value.into())),
        _ => Err("expected NAME=VALUE".into()),
    }
}

fn stated(stated: &Stated) -> Value {
    json!({
        "version": stated.version, "policy": stated.policy, "allow_simulated": stated.allow_simulated,
        "rules": rules_json(&stated.rules), "labels": stated.labels, "minimum_version": stated.minimum_version,
        "expires": stated.expires_unix.map_or(Expiry::Never, |at| Expiry::At(UnixTime(at))).to_string(),
    })
}

fn info(secret: &SecretInfo) -> Value {
    let gone = secret.deleted_unix.is_some();
    let mut row = version(&secret.current, secret.minimum_version, gone);
    row["path"] = json!(secret.path);
    row["labels"] = json!(secret.labels);
    row["minimum_version"] = json!(secret.minimum_version);
    row
}

fn version(version: &SecretVersion, least: u64, gone: bool) -> Value {
    let state = match version {
        one if one.destroyed => "destroyed",
        one if gone || one.deleted_unix.is_some() => "deleted",
        one if one.version < least => "below-minimum",
        one if one.expires.is_over(UnixTime(unix_ms() / 1000)) => "expired",
        _ => "live",
    };
    json!({
        "version": version.version, "state": state, "length": version.length, "policy": version.policy,
        "allow_simulated": version.allow_simulated, "rules": rules_json(&version.rules),
        "rules_text": describe_rules(&version.rules), "created": (version.created_unix != 0).then(|| rfc3339(version.created_unix)),
        "expires": version.expires.to_string(),
    })
}

pub(super) fn path(text: &str) -> Result<ResourcePath, PathError> {
    if text.starts_with("kbs:") { text.parse() } else { format!("kbs:///{text}").parse() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_in_two_forms() {
        assert_eq!(path("a/b/c").unwrap(), path("kbs:///a/b/c").unwrap());
        assert!(path("a/b").is_err());
        assert!(path("kbs://host/a/b").is_err());
    }

    #[test]
    fn labels_are_given_once_each_or_taken_away() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(labels(&[], false).unwrap(), None, "as they were");
        assert_eq!(labels(&[], true).unwrap(), Some(Labels::new()));
        assert_eq!(labels(&[pair("a", "1"), pair("b", "1")], false).unwrap().unwrap().len(), 2);
        let twice = labels(&[pair("b", "1"), pair("a", "1"), pair("a", "2")], false).unwrap_err();
        assert_eq!((twice.class, twice.message.as_str()), (Class::Usage, "label a is given twice"));
        assert_eq!(label_words(&json!({ "a": "1", "b": "2" })), "a=1,b=2");
        assert_eq!(label_words(&json!({})), "-");
    }

    #[test]
    fn rules_fit_into_a_table() {
        let text = format!("chip {} or {}; tcb at least Milan bl 0", "ab".repeat(64), "cd".repeat(64));
        assert_eq!(short(&text), "chip abababababab… or cdcdcdcdcdcd…; tcb at least Milan bl 0");
    }

    #[test]
    fn a_put_that_takes_a_policy_author_says_why() {
        let refused = |message: &str| begins_anew(CliError::new(Class::Refused, message).hint("ask somebody"));
        let hint =
            refused("role-missing (id 1): it takes owner@acme or policy-author@acme, and this key has operator@acme");
        let hint = hint.hint.unwrap();
        assert!(hint.contains("secret undelete") && hint.ends_with("ask somebody"), "{hint}");
        assert_eq!(refused("not-released (id 1)").hint.as_deref(), Some("ask somebody"));
    }

    #[test]
    fn hints_name_the_command_that_shows_what_is_there() {
        let path = path("a/b/c").unwrap();
        let hint = |error: CliError| error.hint.unwrap();
        let one = hint(none_of(&path, "acme", Some(3), "update"));
        assert!(one.contains("coffer kbs secret get-meta kbs:///a/b/c --tenant acme"), "{one}");
        assert!(hint(none_of(&path, "acme", None, "update")).contains("secret list --tenant acme"));
        let update = |words: &[&str]| {
            use clap::{Args as _, FromArgMatches as _};
            let command = UpdateArgs::augment_args(clap::Command::new("update"));
            let matches = command.try_get_matches_from([&["update", "a/b/c"], words].concat()).unwrap();
            UpdateArgs::from_arg_matches(&matches).unwrap().update()
        };
        for words in [&["--version", "1"][..], &["--version", "1", "--minimum-version", "2"]] {
            assert!(hint(update(words).unwrap_err()).contains("without --version"), "{words:?}");
        }
        assert!(hint(update(&[]).unwrap_err()).contains("--minimum-version"));
        assert!(update(&["--version", "1", "--policy", "web"]).is_ok() && update(&["--minimum-version", "2"]).is_ok());
    }
}
