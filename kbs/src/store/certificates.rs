//! Certificate profiles: what a workload's certificate says, decided by policy and by no request.

use coffer_verifier::binding::length_prefixed;

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
    terms,
};
use crate::{tenant::Tenant, terms::Terms};

/// What certificates of one name say, and on what terms they are issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateProfile {
    /// Its name.
    pub name: String,
    /// DNS names.
    pub dns: Vec<String>,
    /// URIs, such as a SPIFFE id.
    pub uris: Vec<String>,
    /// Extended key usage serverAuth.
    pub server_auth: bool,
    /// Extended key usage clientAuth.
    pub client_auth: bool,
    /// How long one is valid, in seconds.
    pub lifetime: u32,
    /// On what terms.
    pub terms: Terms,
}

impl Record for CertificateProfile {
    fn encode(&self) -> Vec<u8> {
        let list = |all: &[String]| length_prefixed(&all.iter().map(String::as_bytes).collect::<Vec<_>>());
        length_prefixed(&[
            &list(&self.dns),
            &list(&self.uris),
            &[u8::from(self.server_auth)],
            &[u8::from(self.client_auth)],
            &self.lifetime.to_be_bytes(),
            &terms::encode(&self.terms),
        ])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let list = |bytes| {
            let (mut fields, mut all) = (Fields(bytes), Vec::new());
            while !fields.0.is_empty() {
                all.push(fields.text()?);
            }
            Some(all)
        };
        let mut fields = Fields(body);
        let profile = Self {
            name: key.text(0),
            dns: list(fields.bytes()?)?,
            uris: list(fields.bytes()?)?,
            server_auth: fields.flag()?,
            client_auth: fields.flag()?,
            lifetime: u32::from_be_bytes(fields.array()?),
            terms: terms::decode(fields.bytes()?)?,
        };
        fields.end(profile)
    }
}

impl Ledger {
    /// Says what certificates of this name say. True if there was no such profile.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_certificate_profile(
        &mut self,
        tenant: &Tenant,
        profile: &CertificateProfile,
    ) -> Result<bool, StoreError> {
        let key = key(tenant, &profile.name);
        let added = !self.has(&key);
        self.put_record(key, profile).await?;
        Ok(added)
    }

    /// The profile of a name.
    ///
    /// # Errors
    /// As the store.
    pub async fn certificate_profile(
        &mut self,
        tenant: &Tenant,
        name: &str,
    ) -> Result<Option<CertificateProfile>, StoreError> {
        self.record(&key(tenant, name)).await
    }

    /// Takes a profile away. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_certificate_profile(&mut self, tenant: &Tenant, name: &str) -> Result<bool, StoreError> {
        self.remove_record(key(tenant, name)).await
    }

    /// Every profile of a tenant.
    ///
    /// # Errors
    /// As the store.
    pub async fn certificate_profiles(
        &mut self,
        tenant: &Tenant,
    ) -> Result<Vec<Result<CertificateProfile, StoreError>>, StoreError> {
        let keys = self.keys(Kind::CertificateProfile, tenant);
        self.records(keys).await
    }
}

fn key(tenant: &Tenant, name: &str) -> RowKey {
    RowKey::of(Kind::CertificateProfile, tenant, &[name.as_bytes()])
}
