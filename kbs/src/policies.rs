//! Release policies by name: the shipped one is `default`; the operator's configuration adds others.

use std::collections::BTreeMap;

use coffer_policies::{Decision, Policy, PolicyError, RELEASE};

/// Name of the shipped release policy.
pub const DEFAULT: &str = "default";

/// Every policy a secret may name.
#[derive(Clone)]
pub struct ReleasePolicies(BTreeMap<String, Policy>);

impl ReleasePolicies {
    /// The shipped policy alone.
    ///
    /// # Errors
    /// [`PolicyError`]: never, as long as the shipped policy parses, which a test shows.
    pub fn shipped() -> Result<Self, PolicyError> {
        Ok(Self(BTreeMap::from([(DEFAULT.to_owned(), Policy::parse(RELEASE.name, RELEASE.text)?)])))
    }

    /// Adds one; `default` stays what it is.
    pub fn add(&mut self, name: String, policy: Policy) {
        if name != DEFAULT {
            self.0.insert(name, policy);
        }
    }

    /// Names, sorted.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    /// True if a secret may name it.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Asks the policy of that name; one that is not there refuses.
    pub fn decide(&self, name: &str, input: &serde_json::Value) -> Result<Decision, String> {
        match self.0.get(name) {
            Some(policy) => Ok(policy.decide(input)),
            None => Err(format!("policy: the secret's policy {name} is not loaded")),
        }
    }
}
