//! Release policies by name: the shipped one is `default`; the operator's configuration adds others.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use coffer_policies::{Decision, Policy, PolicyError, RELEASE};

/// Name of the shipped release policy.
pub const DEFAULT: &str = "default";

type Named = BTreeMap<String, Arc<Policy>>;

/// Every policy a secret may name. Replaced as a whole, also while one of them runs.
pub struct ReleasePolicies(RwLock<Named>);

impl ReleasePolicies {
    /// The shipped policy alone.
    ///
    /// # Errors
    /// [`PolicyError`]: never, as long as the shipped policy parses, which a test shows.
    pub fn shipped() -> Result<Self, PolicyError> {
        let shipped = Policy::parse(RELEASE.name, RELEASE.text)?;
        Ok(Self(RwLock::new(BTreeMap::from([(DEFAULT.to_owned(), Arc::new(shipped))]))))
    }

    /// Adds one; `default` stays what it is.
    pub fn add(&mut self, name: String, policy: Policy) {
        if name != DEFAULT {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(policy));
        }
    }

    /// Puts others in place of all.
    pub fn replace(&self, others: Self) {
        let others = others.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = others;
    }

    fn named(&self) -> RwLockReadGuard<'_, Named> {
        // A map is whole between any two steps.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.named().keys().cloned().collect()
    }

    /// True if a secret may name it.
    pub fn has(&self, name: &str) -> bool {
        self.named().contains_key(name)
    }

    /// Asks the policy of that name; one that is not there refuses.
    pub fn decide(&self, name: &str, input: &serde_json::Value) -> Result<Decision, String> {
        // Not held while it runs.
        let policy = self.named().get(name).cloned();
        match policy {
            Some(policy) => Ok(policy.decide(input)),
            None => Err(format!("policy: the secret's policy {name} is not loaded")),
        }
    }
}
