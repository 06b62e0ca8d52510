//! Keys of a tenant, encrypted under the root key: random, made once, and never derived from it, so that a new root key
//! changes none of them.

use coffer_verifier::binding::length_prefixed;
use zeroize::Zeroizing;

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::{
    keys::{KeyError, RootKey, SecretContext, StoredCiphertext},
    tenant::Tenant,
};

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Sealing keys are derived from it.
    Sealing,
    /// It signs the certificates of workloads.
    Certificates,
    /// It signs tokens.
    Tokens,
}

impl KeyUse {
    const ALL: [Self; 3] = [Self::Sealing, Self::Certificates, Self::Tokens];

    const fn name(self) -> &'static str {
        match self {
            Self::Sealing => "sealing",
            Self::Certificates => "certificates",
            Self::Tokens => "tokens",
        }
    }
}

/// A key as it lies in its row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TenantKey {
    /// What others may see of it, such as a certificate.
    public: Vec<u8>,
    stored: StoredCiphertext,
}

/// A key in the clear.
pub struct OpenKey {
    /// What others may see of it.
    pub public: Vec<u8>,
    /// The key.
    pub key: Zeroizing<Vec<u8>>,
}

impl Record for TenantKey {
    fn encode(&self) -> Vec<u8> {
        let StoredCiphertext { salt, nonce, ciphertext } = &self.stored;
        length_prefixed(&[&self.public, salt, nonce, ciphertext])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let key = Self {
            public: fields.bytes()?.to_vec(),
            stored: StoredCiphertext {
                salt: fields.array()?,
                nonce: fields.array()?,
                ciphertext: fields.bytes()?.to_vec(),
            },
        };
        fields.end(key)
    }
}

impl Ledger {
    /// A key of a tenant; nothing if none was made.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] if its row or ciphertext is not ours.
    pub async fn tenant_key(&mut self, tenant: &Tenant, used: KeyUse) -> Result<Option<OpenKey>, StoreError> {
        let row = row_key(tenant, used);
        let Some(TenantKey { public, stored }) = self.record(&row).await? else { return Ok(None) };
        let opened = self.root.decrypt(context(tenant, used), &stored);
        let key = opened.map_err(|source| StoreError::Tampered { what: row.what(), source })?;
        Ok(Some(OpenKey { public, key }))
    }

    /// What others may see of a key; nothing if none was made.
    ///
    /// # Errors
    /// As [`Ledger::tenant_key`].
    pub async fn tenant_key_public(&mut self, tenant: &Tenant, used: KeyUse) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.record::<TenantKey>(&row_key(tenant, used)).await?.map(|key| key.public))
    }

    /// Keeps a key that was just made. One that is there already stays, believed or not: what hangs from it would be lost.
    ///
    /// # Errors
    /// As the store.
    pub async fn keep_tenant_key(&mut self, tenant: &Tenant, used: KeyUse, new: &OpenKey) -> Result<(), StoreError> {
        let row = row_key(tenant, used);
        if self.has(&row) {
            return Ok(());
        }
        let stored = self.root.encrypt(context(tenant, used), &new.key).map_err(StoreError::Key)?;
        self.put_record(row, &TenantKey { public: new.public.clone(), stored }).await
    }

    /// True if one was made, believed or not.
    pub fn has_tenant_key(&mut self, tenant: &Tenant, used: KeyUse) -> bool {
        self.has(&row_key(tenant, used))
    }
}

/// The same key, wrapped by another root key.
pub(super) fn rewrapped(row: &RowKey, body: &[u8], old: &RootKey, new: &RootKey) -> Result<Vec<u8>, KeyError> {
    let key = TenantKey::decode(row, body).ok_or(KeyError::Encoding)?;
    let tenant = row.tenant().ok_or(KeyError::Encoding)?;
    let used = KeyUse::ALL.into_iter().find(|used| row_key(&tenant, *used) == *row);
    let context = context(&tenant, used.ok_or(KeyError::Encoding)?);
    let stored = new.encrypt(context, &old.decrypt(context, &key.stored)?)?;
    Ok(TenantKey { stored, ..key }.encode())
}

fn row_key(tenant: &Tenant, used: KeyUse) -> RowKey {
    RowKey::of(Kind::TenantKey, tenant, &[used.name().as_bytes()])
}

/// No secret has such a path.
fn context(tenant: &Tenant, used: KeyUse) -> SecretContext<'_> {
    let path = match used {
        KeyUse::Sealing => "tenant-key/sealing",
        KeyUse::Certificates => "tenant-key/certificates",
        KeyUse::Tokens => "tenant-key/tokens",
    };
    SecretContext { tenant: tenant.as_str(), path, version: 1, allow_simulated: false, policy: "" }
}
