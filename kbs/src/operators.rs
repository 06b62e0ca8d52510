//! Operators: whom the admin listener lets in, what somebody may, and who asks.
//!
//! The configuration's operators are owners of everything; those in the ledger are what they were granted.

use std::{collections::BTreeMap, sync::Arc};

use coffer_ratls::KeyList;
use coffer_verifier::abi::SpkiDigest;

use crate::{
    roles::{Grant, Method, Role},
    store::{Ledger, StoreError},
    tenant::Tenant,
};

/// Everybody the admin listener lets in.
#[derive(Clone)]
pub struct Operators {
    /// Names in the configuration, by key.
    pub(crate) configured: Arc<BTreeMap<SpkiDigest, String>>,
    /// What the listener admits now.
    pub(crate) listed: KeyList,
}

impl Operators {
    /// Of a configuration, and of the ledger.
    pub fn new(configured: BTreeMap<SpkiDigest, String>, stored: Vec<SpkiDigest>) -> Self {
        let listed = KeyList::default();
        listed.replace(configured.keys().copied().chain(stored));
        Self { configured: Arc::new(configured), listed }
    }

    /// What the listener asks.
    pub fn list(&self) -> KeyList {
        self.listed.clone()
    }

    /// Lets in whom the ledger lists from now on.
    pub(crate) fn refresh(&self, stored: Vec<SpkiDigest>) {
        self.listed.replace(self.configured.keys().copied().chain(stored));
    }

    /// Name and grants of a key; nothing if it is nobody's.
    pub(crate) async fn find(
        &self,
        ledger: &mut Ledger,
        key: &SpkiDigest,
    ) -> Result<Option<(String, Vec<Grant>)>, StoreError> {
        if let Some(name) = self.configured.get(key) {
            return Ok(Some((name.clone(), vec![Grant { role: Role::Owner, tenant: None }])));
        }
        Ok(ledger.admin(key).await?.map(|admin| (admin.name, admin.grants)))
    }
}

/// Somebody who may ask what they asked.
pub struct Caller {
    /// Name in the trail.
    pub(crate) name: String,
    pub(crate) key: SpkiDigest,
    pub(crate) method: &'static Method,
    pub(crate) tenant: Option<Tenant>,
}
