//! What an operator's change made of it, for the trail: what is not as it was, before and after; of what is new, all that was said.
//!
//! Never: says what was asked for; names a value of a secret.

use core::fmt::Display;
use std::collections::BTreeSet;

use coffer_verifier::Expiry;
use sha2::{Digest as _, Sha256};

use super::seconds;
use crate::{
    store::{Described, Reference, Signer, Stated, rules_digest},
    terms::{Rules, Terms},
};

/// Labels whose change is spelled out.
const LABELS: usize = 8;
/// Longest list that is spelled out, in bytes.
const LONGEST: usize = 512;

/// Of a version with all that is said about it.
pub(super) fn of_secret(before: Option<&Described>, now: &Described) -> Vec<String> {
    let mut changes = of_stated(before.map(|before| &before.stated), &now.stated);
    say(&mut changes, "expires", before.map(|before| expiry(before.expires)), expiry(now.expires));
    say(&mut changes, "minimum_version", before.map(|before| before.minimum_version), now.minimum_version);
    changes
}

/// Of an author's rule.
pub(super) fn of_signer(before: Option<&Signer>, now: &Signer) -> Vec<String> {
    let mut changes = Vec::new();
    let (was, rule) = (before.map(|before| before.rule), now.rule);
    say(&mut changes, "author_key", was.map(|was| was.author_key), rule.author_key);
    say(&mut changes, "family_id", was.map(|was| was.family_id), rule.family_id);
    say(&mut changes, "image_id", was.map(|was| was.image_id), rule.image_id);
    say(&mut changes, "minimum_guest_svn", was.map(|was| was.minimum_guest_svn), rule.minimum_guest_svn);
    say(&mut changes, "expires", before.map(|before| expiry(before.expires)), expiry(now.expires));
    changes
}

/// Of an admitted pair.
pub(super) fn of_reference(before: Option<&Reference>, now: &Reference) -> Vec<String> {
    let mut changes = Vec::new();
    say(&mut changes, "name", before.map(|before| named(&before.name)), named(&now.name));
    say(&mut changes, "expires", before.map(|before| expiry(before.expires)), expiry(now.expires));
    changes
}

/// A name that may be left out.
pub(super) fn named(name: &str) -> String {
    if name.is_empty() { "none".to_owned() } else { format!("{name:?}") }
}

/// Of what a new version took over.
fn of_stated(before: Option<&Stated>, now: &Stated) -> Vec<String> {
    let mut changes = of_terms(before.map(|before| &before.terms), &now.terms);
    let were = before.map(|before| &before.labels);
    let names: BTreeSet<&String> = were.into_iter().flat_map(|were| were.keys()).chain(now.labels.keys()).collect();
    let value = |labels: &crate::store::Labels, name: &String| {
        labels.get(name).map_or("none".to_owned(), |one| format!("{one:?}"))
    };
    let mut labels = Vec::new();
    for name in names {
        say(&mut labels, &format!("label {name}"), were.map(|were| value(were, name)), value(&now.labels, name));
    }
    let more = labels.len().saturating_sub(LABELS);
    changes.extend(labels.into_iter().take(LABELS));
    if more > 0 {
        changes.push(format!("labels: {more} more"));
    }
    changes
}

/// Of the terms of anything.
pub(super) fn of_terms(before: Option<&Terms>, now: &Terms) -> Vec<String> {
    let mut changes = Vec::new();
    say(&mut changes, "policy", before.map(|before| &before.policy), &now.policy);
    say(&mut changes, "allow_simulated", before.map(|before| before.allow_simulated), now.allow_simulated);
    say(&mut changes, "rules", before.map(|before| rules(&before.rules)), rules(&now.rules));
    changes
}

/// Says it if it is another, or new.
#[allow(clippy::needless_pass_by_value, reason = "most callers make it for this")]
pub(super) fn say<T: PartialEq + Display>(changes: &mut Vec<String>, what: &str, before: Option<T>, now: T) {
    match before {
        None => changes.push(format!("{what}: {now}")),
        Some(before) if before != now => changes.push(format!("{what}: {now}, was {before}")),
        Some(_) => {}
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
