//! Policies by name: a typed floor, the roots that are believed, and Rego behind both, which can only refuse more.
//!
//! `strict` is always there: AMD's roots and the built-in strict floor. What is configured stands beside it. Every request is
//! judged under one; a request that names none under the default, which is `strict` unless the configuration names another.
//! Trusts: the operator's texts. Never: believes a simulator's root that its policy does not list; lets Rego add anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_policies::Policy as Rego;
use coffer_verifier::abi::SpkiDigest;
use coffer_verifier::ear::{Word, WordError};
use coffer_verifier::{Appraisal, CrlPolicy, EvidencePolicy, STRICT, TrustAnchors, UnixTime, Verifier};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::refusal::Refusal;

/// The policy that is always there.
pub const STRICT_NAME: &str = "strict";

/// One policy.
pub struct Policy {
    /// What requests call it.
    pub name: Word,
    /// Which text of it this is.
    pub revision: Word,
    /// Judges by floor and roots.
    pub verifier: Verifier,
    rego: Option<Rego>,
}

/// What a policy is made of.
pub struct Parts<'a> {
    /// What requests call it.
    pub name: &'a str,
    /// The floor, and its text.
    pub floor: (EvidencePolicy, &'a str),
    /// Rego.
    pub rego: Option<Rego>,
    /// Roots of simulators that are believed too.
    pub simulated: &'a [SpkiDigest],
}

impl Policy {
    /// Puts it together. Its revision is the digest of its floor's text, as `coffer verify` has it; with Rego or a simulator's
    /// roots, of all of them.
    ///
    /// # Errors
    /// [`WordError`] of its name.
    pub fn new(parts: Parts<'_>) -> Result<Self, WordError> {
        let Parts { name, floor: (policy, text), rego, simulated } = parts;
        let mut revision: [u8; 32] = Sha256::digest(text).into();
        if rego.is_some() || !simulated.is_empty() {
            let mut all = Sha256::new().chain_update(revision);
            all.update(rego.as_ref().map_or([0; 32], Rego::digest));
            for root in simulated {
                all.update(root.as_bytes());
            }
            revision = all.finalize().into();
        }
        let anchors = simulated.iter().copied().fold(TrustAnchors::amd(), TrustAnchors::with_simulated);
        Ok(Self {
            name: Word::parse(name)?,
            revision: Word::parse(&hex::encode(revision))?,
            verifier: Verifier { anchors, crl: CrlPolicy::Required, policy },
            rego,
        })
    }

    /// Rego stands behind the floor.
    pub const fn has_rego(&self) -> bool {
        self.rego.is_some()
    }

    /// Roots of simulators that it believes beside AMD's.
    pub fn simulated_roots(&self) -> &[SpkiDigest] {
        self.verifier.anchors.simulated()
    }

    /// What Rego has against it, its age among it, in the judge's words.
    pub fn lower(&self, appraisal: Appraisal, now: UnixTime) -> Appraisal {
        coffer_policies::lower(appraisal, self.rego.as_slice(), self.verifier.policy.max_policy_age, now)
    }
}

/// All of them.
pub struct Policies {
    all: BTreeMap<String, Arc<Policy>>,
    default: Arc<Policy>,
}

impl Policies {
    /// These, and `strict`, which none of them may be called. `None`: there is none of the name of the default.
    ///
    /// # Errors
    /// [`WordError`], never in fact: our own name is one.
    pub fn new(configured: Vec<Policy>, default: &str) -> Result<Option<Self>, WordError> {
        let parts = Parts { name: STRICT_NAME, floor: (EvidencePolicy::strict(), STRICT), rego: None, simulated: &[] };
        let all = configured.into_iter().chain([Policy::new(parts)?]);
        let all: BTreeMap<_, _> = all.map(|policy| (policy.name.to_string(), Arc::new(policy))).collect();
        let default = all.get(default).cloned();
        Ok(default.map(|default| Self { all, default }))
    }

    /// The one that a request names, or the default.
    ///
    /// # Errors
    /// [`Refusal::Policy`].
    pub fn find(&self, name: Option<&str>) -> Result<Arc<Policy>, Refusal> {
        let Some(name) = name else { return Ok(Arc::clone(&self.default)) };
        let found = self.all.get(name).cloned();
        found.ok_or_else(|| Refusal::Policy(coffer_rim::foreign::foreign_at_most(name, 64)))
    }

    /// Every one, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.all.values().map(|policy| &**policy)
    }

    /// The one of requests that name none.
    pub fn default_name(&self) -> &str {
        self.default.name.as_str()
    }

    /// The list that others see.
    pub fn to_json(&self) -> Value {
        let one = |policy: &Policy| {
            json!({
                "id": policy.name.as_str(),
                "revision": policy.revision.as_str(),
                "rego": policy.has_rego(),
                "simulated_roots": policy.simulated_roots(),
            })
        };
        json!({ "default": self.default_name(), "policies": self.iter().map(one).collect::<Value>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, rego: Option<&str>, simulated: &[SpkiDigest]) -> Policy {
        let rego = rego.map(|text| Rego::parse(name, text).unwrap());
        Policy::new(Parts { name, floor: (EvidencePolicy::strict(), STRICT), rego, simulated }).unwrap()
    }

    #[test]
    fn no_name_is_the_default_and_never_no_policy() {
        let policies = Policies::new(vec![policy("fleet", None, &[])], STRICT_NAME).unwrap().unwrap();
        assert_eq!(policies.find(None).unwrap().name.as_str(), "strict");
        assert_eq!(policies.find(Some("fleet")).unwrap().name.as_str(), "fleet");
        for name in ["", "Strict", "fleet ", "nobody\u{1b}"] {
            assert!(matches!(policies.find(Some(name)), Err(Refusal::Policy(_))), "{name}");
        }
        let policies = Policies::new(vec![policy("fleet", None, &[])], "fleet").unwrap().unwrap();
        assert_eq!(policies.find(None).unwrap().name.as_str(), "fleet");
        assert!(Policies::new(Vec::new(), "fleet").unwrap().is_none());
    }

    #[test]
    fn a_revision_is_of_every_part() {
        let allow = "package t\nallow := true";
        let root = SpkiDigest::new([1; 32]);
        let digest = hex::encode(Sha256::digest(STRICT));
        assert_eq!(policy("a", None, &[]).revision.as_str(), digest, "as `coffer token issue` has it");
        let others = [
            policy("a", Some(allow), &[]),
            policy("a", Some("package t\nallow := false"), &[]),
            policy("a", None, &[root]),
            policy("a", Some(allow), &[root]),
        ];
        let mut all: Vec<_> = others.iter().map(|one| one.revision.to_string()).chain([digest]).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 5);
    }

    #[test]
    fn nothing_is_believed_that_is_not_listed() {
        assert!(!policy("a", None, &[]).verifier.anchors.accepts_simulated());
        let root = SpkiDigest::new([1; 32]);
        let policies = Policies::new(vec![policy("lab", None, &[root])], STRICT_NAME).unwrap().unwrap();
        assert_eq!(policies.find(Some("lab")).unwrap().verifier.anchors.simulated(), [root]);
        assert!(!policies.find(None).unwrap().verifier.anchors.accepts_simulated());
        assert_eq!(policies.to_json()["policies"][0]["simulated_roots"][0], "01".repeat(32));
    }
}
