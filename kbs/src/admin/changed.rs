//! What an operator's change made of it, for the trail: what is not as it was, before and after.
//!
//! Never: says what was asked for; names a value of a secret.

use core::fmt::Display;
use std::collections::BTreeSet;

use coffer_verifier::Expiry;
use sha2::{Digest as _, Sha256};

use super::seconds;
use crate::{
    store::{Described, Stated, rules_digest},
    terms::{Rules, Terms},
};

/// Labels whose change is spelled out.
const LABELS: usize = 8;
/// Longest list that is spelled out, in bytes.
const LONGEST: usize = 512;

/// Of a version with all that is said about it.
pub(super) fn of_secret(before: &Described, now: &Described) -> Vec<String> {
    let mut changes = of_stated(&before.stated, &now.stated);
    say(&mut changes, "expires", &expiry(before.expires), &expiry(now.expires));
    say(&mut changes, "minimum_version", &before.minimum_version, &now.minimum_version);
    changes
}

/// Of what a new version took over.
fn of_stated(before: &Stated, now: &Stated) -> Vec<String> {
    let mut changes = of_terms(&before.terms, &now.terms);
    let names: BTreeSet<&String> = before.labels.keys().chain(now.labels.keys()).collect();
    let value = |labels: &crate::store::Labels, name: &String| {
        labels.get(name).map_or("none".to_owned(), |one| format!("{one:?}"))
    };
    let mut labels = Vec::new();
    for name in names {
        say(&mut labels, &format!("label {name}"), &value(&before.labels, name), &value(&now.labels, name));
    }
    let more = labels.len().saturating_sub(LABELS);
    changes.extend(labels.into_iter().take(LABELS));
    if more > 0 {
        changes.push(format!("labels: {more} more"));
    }
    changes
}

/// Of the terms of anything.
pub(super) fn of_terms(before: &Terms, now: &Terms) -> Vec<String> {
    let mut changes = Vec::new();
    say(&mut changes, "policy", &before.policy, &now.policy);
    say(&mut changes, "allow_simulated", &before.allow_simulated, &now.allow_simulated);
    say(&mut changes, "rules", &rules(&before.rules), &rules(&now.rules));
    changes
}

/// Says it if it is another.
pub(super) fn say<T: PartialEq + Display + ?Sized>(changes: &mut Vec<String>, what: &str, before: &T, now: &T) {
    if before != now {
        changes.push(format!("{what}: {now}, was {before}"));
    }
}

/// Words of a list, or what tells a long one from others.
pub(super) fn listed(words: impl IntoIterator<Item: AsRef<str>>) -> String {
    let mut all = String::new();
    for word in words {
        all.push_str(if all.is_empty() { "" } else { " " });
        all.push_str(word.as_ref());
    }
    if all.len() > LONGEST { format!("sha256 {}", hex::encode(Sha256::digest(&all))) } else { all }
}

fn rules(rules: &Rules) -> String {
    if rules.is_empty() { "none".to_owned() } else { format!("sha256 {}", rules_digest(rules)) }
}

fn expiry(expires: Expiry) -> String {
    seconds(expires).map_or("never".to_owned(), |seconds| seconds.to_string())
}
