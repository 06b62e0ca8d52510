//! Release policies by name: the shipped one is `default`; the operator's configuration adds others, and a tenant keeps its own
//! in the ledger. One that a tenant keeps counts before one of the configuration that has its name.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use coffer_policies::{Policy, PolicyError, RELEASE};
use sha2::{Digest as _, Sha256};

/// Name of the shipped release policy.
pub const DEFAULT: &str = "default";

type Named = BTreeMap<String, Arc<Policy>>;

/// Every policy a secret may name. Replaced as a whole, also while one of them runs.
pub struct ReleasePolicies {
    named: RwLock<Named>,
    /// Those of tenants that were parsed already, by name and text.
    parsed: Mutex<HashMap<[u8; 32], Arc<Policy>>>,
    /// How often they were replaced.
    edition: AtomicU64,
}

/// Parsed policies of tenants that are kept at hand.
const PARSED: usize = 64;

impl ReleasePolicies {
    /// The shipped policy alone.
    ///
    /// # Errors
    /// [`PolicyError`]: never, as long as the shipped policy parses, which a test shows.
    pub fn shipped() -> Result<Self, PolicyError> {
        let shipped = Policy::parse(RELEASE.name, RELEASE.text)?;
        let named = BTreeMap::from([(DEFAULT.to_owned(), Arc::new(shipped))]);
        Ok(Self { named: RwLock::new(named), parsed: Mutex::default(), edition: AtomicU64::new(0) })
    }

    /// Adds one; `default` stays what it is.
    pub fn add(&mut self, name: String, policy: Policy) {
        if name != DEFAULT {
            self.named.get_mut().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(policy));
        }
    }

    /// Puts others in place of all.
    pub fn replace(&self, others: Self) {
        let others = others.named.into_inner().unwrap_or_else(PoisonError::into_inner);
        *self.named.write().unwrap_or_else(PoisonError::into_inner) = others;
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// Changes whenever they are replaced.
    pub fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    fn named(&self) -> RwLockReadGuard<'_, Named> {
        // A map is whole between any two steps.
        self.named.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.named().keys().cloned().collect()
    }

    /// True if a secret may name it.
    pub fn has(&self, name: &str) -> bool {
        self.named().contains_key(name)
    }

    /// The policy of that name.
    pub fn named_policy(&self, name: &str) -> Option<Arc<Policy>> {
        self.named().get(name).cloned()
    }

    /// The policy of that name: by the text that a tenant keeps, where it does. One that is not there is a reason against.
    pub fn of(&self, name: &str, stored: Option<&str>) -> Result<Arc<Policy>, String> {
        match stored {
            Some(text) => self.parsed(name, text).map_err(|error| format!("policy: {error}")),
            None => self.named_policy(name).ok_or_else(|| format!("policy: the secret's policy {name} is not loaded")),
        }
    }

    fn parsed(&self, name: &str, text: &str) -> Result<Arc<Policy>, PolicyError> {
        let digest: [u8; 32] = Sha256::new().chain_update(name).chain_update([0]).chain_update(text).finalize().into();
        if let Some(policy) = self.parsed.lock().unwrap_or_else(PoisonError::into_inner).get(&digest) {
            return Ok(policy.clone());
        }
        // Not held while it parses.
        let policy = Arc::new(Policy::parse(name, text)?);
        let mut parsed = self.parsed.lock().unwrap_or_else(PoisonError::into_inner);
        if parsed.len() >= PARSED {
            parsed.clear();
        }
        parsed.insert(digest, policy.clone());
        Ok(policy)
    }
}
