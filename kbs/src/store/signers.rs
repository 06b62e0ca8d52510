//! Authors whose signed launches are admitted.

use coffer_verifier::{
    Expiry, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, KeyDigest},
    binding::length_prefixed,
};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::tenant::Tenant;

/// One rule of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its name; one rule per name.
    pub name: String,
    /// Who must have signed, under which names, from which version on.
    pub rule: SignerRule,
    /// From when on it admits nothing.
    pub expires: Expiry,
}

impl Signer {
    /// True while it admits.
    pub fn is_current(&self, now: i64) -> bool {
        !self.expires.is_over(UnixTime::from_secs(now))
    }
}

impl Record for Signer {
    fn encode(&self) -> Vec<u8> {
        let SignerRule { author_key, family_id, image_id, minimum_guest_svn } = &self.rule;
        length_prefixed(&[
            author_key.as_bytes(),
            family_id.as_bytes(),
            image_id.as_bytes(),
            &minimum_guest_svn.to_be_bytes(),
            &self.expires.to_secs().to_be_bytes(),
        ])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let rule = SignerRule {
            author_key: KeyDigest::new(fields.array()?),
            family_id: FamilyId::new(fields.array()?),
            image_id: ImageId::new(fields.array()?),
            minimum_guest_svn: u32::from_be_bytes(fields.array()?),
        };
        let expires = Expiry::from_secs(fields.signed()?).ok()?;
        fields.end(Self { name: key.text(0), rule, expires })
    }
}

impl Ledger {
    /// Adds a rule, or replaces the one of its name. True if there was none.
    ///
    /// # Errors
    /// As the store.
    pub async fn add_signer(&mut self, tenant: &Tenant, signer: &Signer) -> Result<bool, StoreError> {
        let key = key(tenant, &signer.name);
        let added = !self.has(&key);
        self.put_record(key, signer).await?;
        Ok(added)
    }

    /// Removes a rule. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_signer(&mut self, tenant: &Tenant, name: &str) -> Result<bool, StoreError> {
        self.remove_record(key(tenant, name)).await
    }

    /// Every rule of a tenant, with what is wrong with a row instead of a rule where it is not believed.
    ///
    /// # Errors
    /// As the store.
    pub async fn signers(&mut self, tenant: &Tenant) -> Result<Vec<Result<Signer, StoreError>>, StoreError> {
        let keys = self.keys(Kind::Signer, tenant);
        self.records(keys).await
    }
}

pub(super) fn key(tenant: &Tenant, name: &str) -> RowKey {
    RowKey::of(Kind::Signer, tenant, &[name.as_bytes()])
}
