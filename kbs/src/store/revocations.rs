//! Revocations: of a tenant, or of every tenant. What is revoked stands in a row's name, so that a row that is damaged or missing goes
//! on refusing; its content says who said so, and why.

use coffer_verifier::binding::length_prefixed;

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::{
    revoked::{Marks, Revoked},
    tenant::Tenant,
};

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What counts no more.
    pub revoked: Revoked,
    /// For whom; nothing: for all.
    pub tenant: Option<Tenant>,
    /// Why, in an operator's words.
    pub reason: String,
    /// Who said so.
    pub by: String,
    /// Since when.
    pub since_unix: i64,
}

/// What of it touches one guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touching {
    /// Why the guest is refused.
    pub reasons: Vec<String>,
    /// Chips that are revoked, where the guest shows none.
    pub chips_it_may_hide: usize,
}

/// The content of a row.
pub(super) struct Said {
    pub(super) reason: String,
    pub(super) by: String,
    pub(super) since_unix: i64,
}

impl Said {
    /// In place of what nobody can read any more.
    pub(super) fn nothing() -> Self {
        Self { reason: String::new(), by: String::new(), since_unix: 0 }
    }
}

impl Record for Said {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[self.reason.as_bytes(), self.by.as_bytes(), &self.since_unix.to_be_bytes()])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let said = Self { reason: fields.text()?, by: fields.text()?, since_unix: fields.signed()? };
        fields.end(said)
    }
}

impl Ledger {
    /// Adds one, or says anew why. True if it was not there.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_revocation(&mut self, revocation: &Revocation) -> Result<bool, StoreError> {
        let Revocation { revoked, tenant, reason, by, since_unix } = revocation;
        let key = key(revoked, tenant.as_ref());
        let added = !self.has(&key);
        let said = Said { reason: reason.clone(), by: by.clone(), since_unix: *since_unix };
        self.put_record(key, &said).await?;
        Ok(added)
    }

    /// Takes one back. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_revocation(&mut self, revoked: &Revoked, tenant: Option<&Tenant>) -> Result<bool, StoreError> {
        self.remove_record(key(revoked, tenant)).await
    }

    /// Every revocation of a tenant, or those of all tenants.
    ///
    /// # Errors
    /// As the store.
    pub async fn revocations(
        &mut self,
        tenant: Option<&Tenant>,
    ) -> Result<Vec<Result<Revocation, StoreError>>, StoreError> {
        let mut all = Vec::new();
        for key in self.revocation_keys(tenant) {
            let Some(revoked) = revoked_of(&key) else { continue };
            match self.record::<Said>(&key).await {
                Ok(said) => all.extend(said.map(|Said { reason, by, since_unix }| {
                    Ok(Revocation { revoked, tenant: tenant.cloned(), reason, by, since_unix })
                })),
                Err(error @ StoreError::Tampered { .. }) => all.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Number of revocations of a tenant, or of those of all tenants, believed or not.
    pub fn revocation_count(&mut self, tenant: Option<&Tenant>) -> usize {
        self.revocation_keys(tenant).len()
    }

    /// What touches a guest of a tenant. A row that is not believed refuses as one that is.
    ///
    /// # Errors
    /// As the store.
    pub async fn revocations_touching(&mut self, tenant: &Tenant, marks: &Marks) -> Result<Touching, StoreError> {
        let mut touching = Touching::default();
        for scope in [None, Some(tenant)] {
            for key in self.revocation_keys(scope) {
                let Some(revoked) = revoked_of(&key) else { continue };
                if marks.chip.is_none() && matches!(revoked, Revoked::Chip(_)) {
                    touching.chips_it_may_hide += 1;
                }
                if !revoked.touches(marks) {
                    continue;
                }
                let why = match self.record::<Said>(&key).await {
                    Ok(said) => said.map(|said| said.reason).unwrap_or_default(),
                    Err(error @ StoreError::Tampered { .. }) => {
                        touching.reasons.push(format!("store: {error}"));
                        String::new()
                    }
                    Err(error) => return Err(error),
                };
                let whose = scope.map_or("every tenant".to_owned(), |tenant| format!("tenant {tenant}"));
                let why = if why.is_empty() { why } else { format!(": {why}") };
                touching.reasons.push(format!("revoked: {revoked}, for {whose}{why}"));
            }
        }
        Ok(touching)
    }

    fn revocation_keys(&mut self, tenant: Option<&Tenant>) -> Vec<RowKey> {
        match tenant {
            Some(tenant) => self.keys(Kind::Revocation, tenant),
            None => self.global_keys(Kind::Revocation),
        }
    }
}

fn key(revoked: &Revoked, tenant: Option<&Tenant>) -> RowKey {
    let value = revoked.value();
    let parts = [revoked.kind().as_bytes(), value.as_bytes()];
    match tenant {
        Some(tenant) => RowKey::of(Kind::Revocation, tenant, &parts),
        None => RowKey::global(Kind::Revocation, &parts),
    }
}

/// Only this server makes keys that the ledger knows, and it makes them from what can be read back.
fn revoked_of(key: &RowKey) -> Option<Revoked> {
    Revoked::parse(&key.text(0), &key.text(1)).ok()
}
