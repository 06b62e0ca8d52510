//! Operators with their grants, and the tenants there are.

use coffer_verifier::{abi::SpkiDigest, binding::length_prefixed};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::{roles::Grant, tenant::Tenant};

/// An operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Its key.
    pub key: SpkiDigest,
    /// Name in the trail.
    pub name: String,
    /// What it may.
    pub grants: Vec<Grant>,
    /// When it was added.
    pub added_unix: i64,
}

impl Record for Admin {
    fn encode(&self) -> Vec<u8> {
        let grant = |grant: &Grant| {
            let tenant = grant.tenant.as_ref().map_or("", Tenant::as_str);
            length_prefixed(&[grant.role.name().as_bytes(), tenant.as_bytes()])
        };
        let grants: Vec<_> = self.grants.iter().map(grant).collect();
        let grants = length_prefixed(&grants.iter().map(Vec::as_slice).collect::<Vec<_>>());
        length_prefixed(&[self.name.as_bytes(), &grants, &self.added_unix.to_be_bytes()])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let name = fields.text()?;
        let (mut list, mut grants) = (Fields(fields.bytes()?), Vec::new());
        while !list.0.is_empty() {
            let mut grant = Fields(list.bytes()?);
            let role = grant.text()?.parse().ok()?;
            let tenant = match grant.text()?.as_str() {
                "" => None,
                tenant => Some(Tenant::parse(tenant).ok()?),
            };
            grants.push(grant.end(Grant { role, tenant })?);
        }
        let admin = Self { key: SpkiDigest::try_from(key.part(0)).ok()?, name, grants, added_unix: fields.signed()? };
        fields.end(admin)
    }
}

/// That there is a tenant, and since when: its key says which.
pub(super) struct There(pub(super) i64);

impl Record for There {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[&self.0.to_be_bytes()])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let there = Self(fields.signed()?);
        fields.end(there)
    }
}

impl Ledger {
    /// The operator with a key.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] if its row is not ours: it may nothing then.
    pub async fn admin(&mut self, key: &SpkiDigest) -> Result<Option<Admin>, StoreError> {
        self.record(&admin_key(key)).await
    }

    /// Adds an operator, or gives one other grants. True if the key was not there.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_admin(&mut self, admin: &Admin) -> Result<bool, StoreError> {
        let key = admin_key(&admin.key);
        let added = !self.has(&key);
        self.put_record(key, admin).await?;
        Ok(added)
    }

    /// Takes an operator away. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_admin(&mut self, key: &SpkiDigest) -> Result<bool, StoreError> {
        self.remove_record(admin_key(key)).await
    }

    /// Every operator.
    ///
    /// # Errors
    /// As the store.
    pub async fn admins(&mut self) -> Result<Vec<Result<Admin, StoreError>>, StoreError> {
        let keys = self.global_keys(Kind::Admin);
        self.records(keys).await
    }

    /// Keys of every operator, believed or not.
    pub fn admin_keys(&mut self) -> Vec<SpkiDigest> {
        let keys = self.global_keys(Kind::Admin);
        keys.iter().filter_map(|key| SpkiDigest::try_from(key.part(0)).ok()).collect()
    }

    /// True if a tenant was created.
    ///
    /// # Errors
    /// As the store.
    pub async fn has_tenant(&mut self, tenant: &Tenant) -> Result<bool, StoreError> {
        Ok(self.record::<There>(&tenant_key(tenant)).await?.is_some())
    }

    /// Creates a tenant. True if there was none of that name.
    ///
    /// # Errors
    /// As the store.
    pub async fn add_tenant(&mut self, tenant: &Tenant, now_unix: i64) -> Result<bool, StoreError> {
        let key = tenant_key(tenant);
        if self.has(&key) {
            return Ok(false);
        }
        self.put_record(key, &There(now_unix)).await?;
        Ok(true)
    }

    /// Tenants that were created.
    pub fn tenants(&mut self) -> Vec<Tenant> {
        let keys = self.global_keys(Kind::Tenant);
        keys.iter().filter_map(|key| Tenant::parse(&key.text(0)).ok()).collect()
    }
}

fn admin_key(key: &SpkiDigest) -> RowKey {
    RowKey::global(Kind::Admin, &[key.as_bytes()])
}

fn tenant_key(tenant: &Tenant) -> RowKey {
    RowKey::global(Kind::Tenant, &[tenant.as_str().as_bytes()])
}
