//! Sealing contexts, with the terms on which their keys are released, and generation counters.

use coffer_kbs_client::{Scope, SealingName, SealingPolicy, VolumeRecord};
use coffer_verifier::{abi::SpkiDigest, binding::length_prefixed};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
    terms,
};
use crate::{tenant::Tenant, terms::Terms};

/// What a tenant says about one sealing context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealingContext {
    /// Its name, as guests ask for it.
    pub context: Vec<u8>,
    /// Sealing policies whose keys it gives.
    pub policies: Vec<SealingPolicy>,
    /// On what terms.
    pub terms: Terms,
    /// When it was first put.
    pub created_unix: i64,
}

impl Record for SealingContext {
    fn encode(&self) -> Vec<u8> {
        let policies: Vec<&[u8]> = self.policies.iter().map(|one| one.name().as_bytes()).collect();
        length_prefixed(&[&length_prefixed(&policies), &terms::encode(&self.terms), &self.created_unix.to_be_bytes()])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let (mut names, mut policies) = (Fields(fields.bytes()?), Vec::new());
        while !names.0.is_empty() {
            policies.push(names.text()?.parse().ok()?);
        }
        let context = Self {
            context: key.part(0).to_vec(),
            policies,
            terms: terms::decode(fields.bytes()?)?,
            created_unix: fields.signed()?,
        };
        fields.end(context)
    }
}

/// One counter: bound to the subject that made it, so that no other guest moves it.
#[derive(Clone, Debug)]
pub struct Counter(RowKey);

impl Counter {
    /// Of one subject, under one name.
    pub fn new(tenant: &Tenant, anchor: &SpkiDigest, name: &SealingName, subject: &[u8], id: &[u8; 16]) -> Self {
        let SealingName { policy, scope, context, .. } = name;
        let (policy, scope) = (policy.name().as_bytes(), scope.name().as_bytes());
        Self(RowKey::of(Kind::Generation, tenant, &[anchor.as_bytes(), policy, subject, scope, context, id]))
    }
}

struct Generation(u64);

impl Record for Generation {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[&self.0.to_be_bytes()])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let generation = Self(fields.unsigned()?);
        fields.end(generation)
    }
}

/// A counter that is the record of a sealed volume.
#[derive(Clone, Debug)]
pub struct KeptVolume {
    key: RowKey,
    /// SHA-256 of the root's SubjectPublicKeyInfo.
    pub anchor: Vec<u8>,
    /// Of its key.
    pub policy: String,
    /// Whose it is.
    pub subject: Vec<u8>,
    /// Its name.
    pub name: Vec<u8>,
    /// How it was left.
    pub record: VolumeRecord,
}

impl Record for KeptVolume {
    fn encode(&self) -> Vec<u8> {
        Generation(self.record.counter()).encode()
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let Generation(counter) = Generation::decode(key, body)?;
        let part = |at| key.part(at).to_vec();
        Some(Self {
            key: key.clone(),
            anchor: part(0),
            policy: String::from_utf8(part(1)).ok()?,
            subject: part(2),
            name: part(4),
            record: VolumeRecord::of_counter(counter)?,
        })
    }
}

impl Ledger {
    /// Every sealed volume of a tenant.
    ///
    /// # Errors
    /// As the store.
    pub async fn volumes(&mut self, tenant: &Tenant) -> Result<Vec<Result<KeptVolume, StoreError>>, StoreError> {
        let mut keys = self.keys(Kind::Generation, tenant);
        keys.retain(|key| key.part(3) == Scope::Volume.name().as_bytes() && key.part(5) == VolumeRecord::COUNTER);
        self.records(keys).await
    }

    /// Moves the record of a volume that was found by whoever says so.
    ///
    /// # Errors
    /// As the store.
    pub async fn set_volume(&mut self, volume: &KeptVolume, next: VolumeRecord) -> Result<(), StoreError> {
        self.put_record(volume.key.clone(), &Generation(next.counter())).await
    }

    /// Says on what terms a context gives keys. Gives what was said before.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_sealing_context(
        &mut self,
        tenant: &Tenant,
        new: &SealingContext,
    ) -> Result<Option<SealingContext>, StoreError> {
        let before = match self.sealing_context(tenant, &new.context).await {
            Ok(before) => before,
            // Saying it anew is how a damaged row is mended.
            Err(StoreError::Tampered { .. }) => None,
            Err(error) => return Err(error),
        };
        self.put_record(context_key(tenant, &new.context), new).await?;
        Ok(before)
    }

    /// What is said about a context.
    ///
    /// # Errors
    /// As the store.
    pub async fn sealing_context(
        &mut self,
        tenant: &Tenant,
        context: &[u8],
    ) -> Result<Option<SealingContext>, StoreError> {
        self.record(&context_key(tenant, context)).await
    }

    /// Takes a context away: it gives no keys any more. True if it was there. Said again, it gives the same keys.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_sealing_context(&mut self, tenant: &Tenant, context: &[u8]) -> Result<bool, StoreError> {
        self.remove_record(context_key(tenant, context)).await
    }

    /// Every context of a tenant.
    ///
    /// # Errors
    /// As the store.
    pub async fn sealing_contexts(
        &mut self,
        tenant: &Tenant,
    ) -> Result<Vec<Result<SealingContext, StoreError>>, StoreError> {
        let keys = self.keys(Kind::SealingContext, tenant);
        self.records(keys).await
    }

    /// How far a counter has come; nothing if nobody began it.
    ///
    /// # Errors
    /// As the store.
    pub async fn generation(&mut self, counter: &Counter) -> Result<Option<u64>, StoreError> {
        Ok(self.record::<Generation>(&counter.0).await?.map(|generation| generation.0))
    }

    /// Counters of the same subject and context.
    pub fn counters_beside(&mut self, tenant: &Tenant, counter: &Counter) -> usize {
        let mut all = self.keys(Kind::Generation, tenant);
        all.retain(|one| (0..5).all(|part| one.part(part) == counter.0.part(part)));
        all.len()
    }

    /// Moves a counter. What it was must have been seen by the one who says so.
    ///
    /// # Errors
    /// As the store.
    pub async fn set_generation(&mut self, counter: &Counter, next: u64) -> Result<(), StoreError> {
        self.put_record(counter.0.clone(), &Generation(next)).await
    }
}

fn context_key(tenant: &Tenant, context: &[u8]) -> RowKey {
    RowKey::of(Kind::SealingContext, tenant, &[context])
}
