//! Admitted (measurement, workload) pairs.

use coffer_verifier::{
    Expiry,
    abi::{Measurement, WorkloadDigest},
    binding::length_prefixed,
};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::tenant::Tenant;

/// One admitted pair of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Launch digest of the platform with this workload's digest on its command line.
    pub measurement: Measurement,
    /// Digest of the workload spec.
    pub workload: WorkloadDigest,
    /// For people.
    pub name: String,
    /// From when on it admits nothing.
    pub expires: Expiry,
}

impl Record for Reference {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[self.name.as_bytes(), &self.expires.to_secs().to_be_bytes()])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let reference = Self {
            measurement: Measurement::try_from(key.part(0)).ok()?,
            workload: WorkloadDigest::try_from(key.part(1)).ok()?,
            name: fields.text()?,
            expires: Expiry::from_secs(fields.signed()?).ok()?,
        };
        fields.end(reference)
    }
}

impl Ledger {
    /// Adds a pair, or gives it a new name and expiry. True if it was not there.
    ///
    /// # Errors
    /// As the store.
    pub async fn add_reference(&mut self, tenant: &Tenant, reference: &Reference) -> Result<bool, StoreError> {
        let key = key(tenant, &reference.measurement, &reference.workload);
        let added = !self.has(&key);
        self.put_record(key, reference).await?;
        Ok(added)
    }

    /// One pair, if it is there.
    ///
    /// # Errors
    /// As the store.
    pub async fn reference(
        &mut self,
        tenant: &Tenant,
        measurement: &Measurement,
        workload: &WorkloadDigest,
    ) -> Result<Option<Reference>, StoreError> {
        self.record(&key(tenant, measurement, workload)).await
    }

    /// Removes a pair. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_reference(
        &mut self,
        tenant: &Tenant,
        measurement: &Measurement,
        workload: &WorkloadDigest,
    ) -> Result<bool, StoreError> {
        self.remove_record(key(tenant, measurement, workload)).await
    }

    /// Every pair of a tenant, with what is wrong with a row instead of a pair where it is not believed.
    ///
    /// # Errors
    /// As the store.
    pub async fn references(&mut self, tenant: &Tenant) -> Result<Vec<Result<Reference, StoreError>>, StoreError> {
        let keys = self.keys(Kind::Reference, tenant);
        self.records(keys).await
    }

    /// The pairs that share the measurement or the workload: those that admit, and those that explain a refusal.
    ///
    /// # Errors
    /// As the store.
    pub async fn references_near(
        &mut self,
        tenant: &Tenant,
        measurement: &Measurement,
        workload: &WorkloadDigest,
    ) -> Result<Vec<Result<Reference, StoreError>>, StoreError> {
        let mut near = self.keys(Kind::Reference, tenant);
        let shared = |key: &RowKey| (key.part(0) == measurement.as_bytes(), key.part(1) == workload.as_bytes());
        near.retain(|key| shared(key) != (false, false));
        // Exact pairs first: the limit only ever cuts explanations.
        near.sort_by_key(|key| shared(key) != (true, true));
        near.truncate(NEAR);
        self.records(near).await
    }
}

pub(super) fn key(tenant: &Tenant, measurement: &Measurement, workload: &WorkloadDigest) -> RowKey {
    RowKey::of(Kind::Reference, tenant, &[measurement.as_bytes(), workload.as_bytes()])
}

const NEAR: usize = 32;
