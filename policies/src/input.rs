//! What policies see: one description of it, as a JSON Schema, and how a verifier makes it.
//!
//! The schema says every field there is, what it holds and what it means; `coffer policy lint` holds policies against it, and tests hold the
//! claims of genuine evidence and the pages against it.

use std::{borrow::Cow, collections::BTreeMap, sync::LazyLock};

use coffer_verifier::{Appraisal, Code, MaxAge, Reason, UnixTime, VerifiedReport};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Policy;

/// The JSON Schema (2020-12) of the input.
pub const INPUT_SCHEMA: &str = include_str!("../input.schema.json");

/// One field of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its path, such as `input.result.claims.report.vmpl`; `[]` stands behind what has entries.
    pub path: String,
    /// Its type, with `or null` where it may be null.
    pub kind: String,
    /// What it means.
    pub meaning: String,
}

static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let mut fields = Vec::new();
    // A text that a test parses: nothing would be left out unnoticed.
    if let Ok(schema) = serde_json::from_str::<Value>(INPUT_SCHEMA) {
        collect("input", &schema, &mut fields);
    }
    fields
});

/// Every field, those that hold others before what they hold.
pub fn fields() -> &'static [Field] {
    &FIELDS
}

fn collect(path: &str, schema: &Value, fields: &mut Vec<Field>) {
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let meaning = schema["description"].as_str().unwrap_or_default();
    let words: Vec<String> = schema["enum"].as_array().into_iter().flatten().map(Value::to_string).collect();
    let kind = if words.is_empty() { kinds.join(" or ") } else { words.join(" or ") };
    fields.push(Field { path: path.to_owned(), kind, meaning: meaning.to_owned() });
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        collect(&format!("{path}.{name}"), inner, fields);
    }
    if schema["items"].is_object() {
        collect(&format!("{path}[]"), &schema["items"], fields);
    }
}

/// What is wrong with a road into the input: the first name on it that is no field, and those that are in its place. A part that is not
/// known from the text may be anything.
pub(crate) fn stray(road: &[Option<String>]) -> Option<(String, Vec<&'static str>)> {
    let by_path: BTreeMap<&str, &Field> = FIELDS.iter().map(|field| (field.path.as_str(), field)).collect();
    let mut at = "input".to_owned();
    for part in road {
        let items = format!("{at}[]");
        if by_path.contains_key(items.as_str()) {
            at = items;
            continue;
        }
        let below = format!("{at}.");
        let known: Vec<&str> = by_path
            .keys()
            .filter_map(|path| path.strip_prefix(below.as_str()))
            .filter(|rest| !rest.contains(['.', '[']))
            .collect();
        let Some(name) = part else { return None };
        if known.is_empty() || !known.contains(&name.as_str()) {
            return Some((format!("{at}.{name}"), known));
        }
        at = format!("{at}.{name}");
    }
    None
}

/// Fields of the input, such as `input.spec`, that a policy reads and that a key broker alone gives: about evidence they are absent.
fn of_broker(policy: &Policy) -> Vec<&'static str> {
    let alone = |field: &&Field| field.meaning.ends_with(OF_BROKER) && policy.reads().contains(&field.path);
    fields().iter().filter(alone).map(|field| field.path.as_str()).collect()
}

/// How the schema says whose a field is.
const OF_BROKER: &str = "of the broker alone";

/// What an evidence policy sees of an appraisal; nothing of evidence that is not authentic, for nothing it says is worth a question.
pub fn evidence_input(appraisal: &Appraisal, now: UnixTime) -> Option<Value> {
    let verified = appraisal.verified()?;
    let status = match appraisal.result() {
        Some(result) if result.is_affirming() => "affirming",
        Some(_) => "warning",
        None => "contraindicated",
    };
    Some(of_verified(verified, status, now))
}

/// Asks evidence policies about an appraisal, and lowers it by every reason they have. An appraisal of evidence that is not authentic stays
/// what it is, and nothing is ever raised: a policy that allows what the floor refused changes nothing. Where an age is asked (`max_age`), a policy
/// without the date of a signature is against it, and so is no policy at all.
#[must_use]
pub fn lower(appraisal: Appraisal, policies: &[Policy], max_age: MaxAge, now: UnixTime) -> Appraisal {
    let mut reasons = Vec::new();
    if policies.is_empty() {
        if max_age != MaxAge::Any {
            let expected = format!("a signed bundle {max_age} (max_policy_age)");
            reasons.push(Reason::new(Code::Rego, "no policy in Rego", expected, Policy::AGE_HINT));
        }
        return appraisal.lowered(reasons);
    }
    let Some(input) = evidence_input(&appraisal, now) else { return appraisal };
    for policy in policies {
        if let Some((found, expected, hint)) = policy.too_old(max_age, now) {
            reasons.push(Reason::new(Code::Rego, found, expected, hint));
        }
        let decision = policy.decide(&input);
        let expected = format!("{} to allow it", policy.name());
        let hint = || match &of_broker(policy)[..] {
            [] => Cow::Borrowed(HINT),
            fields => Cow::Owned(format!("{HINT}; it reads {}, which a key broker alone gives", fields.join(", "))),
        };
        let said = decision.reasons().iter().map(|reason| plain(reason));
        reasons.extend(said.map(|found| Reason::new(Code::Rego, found, &expected, hint())));
        if !decision.allows() && decision.reasons().is_empty() {
            reasons.push(Reason::new(Code::Rego, "no reason", &expected, hint()));
        }
    }
    appraisal.lowered(reasons)
}

const HINT: &str = "see what the policy asks for: `coffer policy explain` shows where it stops";

/// A policy may repeat what evidence says, which is nobody's to move a terminal's cursor with.
fn plain(reason: &str) -> String {
    reason.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn of_verified(verified: &VerifiedReport, status: &str, now: UnixTime) -> Value {
    json!({
        "now_unix": now.0,
        "result": { "status": status, "workload_digest": verified.report().host_data(), "claims": verified.claims() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_says_what_it_is_and_what_it_means() {
        assert!(fields().len() > 120, "{}", fields().len());
        for field in fields() {
            assert!(!field.kind.is_empty() && field.meaning.len() > 3, "{field:?}");
        }
    }

    #[test]
    fn what_a_key_broker_alone_gives_is_known_of_a_policy_that_reads_it() {
        let of = |body: &str| {
            Policy::parse("p.rego", &format!("package p\n{body}")).map(|policy| of_broker(&policy)).unwrap()
        };
        assert_eq!(of("allow if input.result.status == \"affirming\""), [""; 0]);
        assert_eq!(of("allow if input.spec.tee == \"sev-snp\""), ["input.spec"]);
        assert_eq!(
            of("import input.secret as s\nallow if {\n\tinput[\"tenant\"].name\n\ts.path\n}"),
            ["input.secret", "input.tenant"]
        );
        let release = Policy::parse(crate::RELEASE.name, crate::RELEASE.text).unwrap();
        assert!(of_broker(&release).contains(&"input.spec"), "{:?}", of_broker(&release));
        for shipped in crate::SHIPPED {
            let policy = Policy::parse(shipped.name, shipped.text).unwrap();
            assert_eq!(of_broker(&policy).is_empty(), shipped.is_for_evidence(), "{}", shipped.name);
        }
    }

    #[test]
    fn a_stray_name_is_told_with_those_that_are_there() {
        let road = |text: &str| -> Vec<Option<String>> { text.split('.').map(|part| Some(part.to_owned())).collect() };
        assert_eq!(stray(&road("result.claims.report.policy.debug")), None);
        assert_eq!(stray(&road("references.0.measurement")), None);
        assert_eq!(stray(&[Some("references".into()), None, Some("name".into())]), None);
        let (name, known) = stray(&road("result.claims.report.debug")).unwrap();
        assert!(name == "input.result.claims.report.debug" && known.contains(&"vmpl"), "{name} {known:?}");
        assert_eq!(stray(&road("references.0.digest")).unwrap().0, "input.references[].digest");
        assert!(stray(&road("result.status.word")).is_some());
        assert_eq!(stray(&[Some("result".into()), None, Some("no-matter".into())]), None);
    }
}
