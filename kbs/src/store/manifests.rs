//! Manifest keys and signed reference manifests.
//!
//! One row per name holds the newest manifest and how far the name is revoked, so that neither an older manifest nor a
//! revoked one comes back with the same or a lower number. What a manifest admits is decided from its signed bytes at
//! each release, under the keys listed then.

use coffer_verifier::{
    P384PublicKey,
    abi::{SpkiDigest, WorkloadDigest},
    binding::length_prefixed,
    manifest::{Contents, SignedManifest, VerifiedManifest},
};

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::tenant::Tenant;

/// A key whose manifests count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestKey {
    /// For people.
    pub name: String,
    /// The key.
    pub key: P384PublicKey,
}

/// A manifest as it came, and how far its name is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its name.
    pub name: String,
    /// Its number.
    pub sequence: u64,
    /// Last sequence revoked; 0: none.
    pub revoked_through: u64,
    /// The workload it is about.
    pub workload: WorkloadDigest,
    /// The signed document.
    pub envelope: Vec<u8>,
    /// When it was added, seconds since 1970.
    pub added_unix: i64,
}

impl StoredManifest {
    /// True if it was revoked.
    pub fn is_revoked(&self) -> bool {
        self.sequence <= self.revoked_through
    }

    /// Judges its signature under the keys listed now.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, keys: &[P384PublicKey]) -> Result<VerifiedManifest, String> {
        let signed = SignedManifest::parse(&self.envelope).map_err(|error| coffer_rim::chain(&error))?;
        signed.verify(keys).map_err(|error| coffer_rim::chain(&error))
    }
}

impl Record for ManifestKey {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[self.name.as_bytes(), &self.key.to_spki_der()])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let key = Self { name: fields.text()?, key: P384PublicKey::from_spki_der(fields.bytes()?).ok()? };
        fields.end(key)
    }
}

impl Record for StoredManifest {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[
            &self.sequence.to_be_bytes(),
            &self.revoked_through.to_be_bytes(),
            self.workload.as_bytes(),
            &self.envelope,
            &self.added_unix.to_be_bytes(),
        ])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let manifest = Self {
            name: key.text(0),
            sequence: fields.unsigned()?,
            revoked_through: fields.unsigned()?,
            workload: WorkloadDigest::new(fields.array()?),
            envelope: fields.bytes()?.to_vec(),
            added_unix: fields.signed()?,
        };
        fields.end(manifest)
    }
}

/// That a manifest is about a workload: its key says it all.
struct About;

impl Record for About {
    fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        body.is_empty().then_some(Self)
    }
}

impl Ledger {
    /// Lists a key, or gives it a new name. True if it was not listed.
    ///
    /// # Errors
    /// As the store.
    pub async fn add_manifest_key(&mut self, tenant: &Tenant, key: &ManifestKey) -> Result<bool, StoreError> {
        let row = key_of_key(tenant, &key.key.spki_digest());
        let added = !self.has(&row);
        self.put_record(row, key).await?;
        Ok(added)
    }

    /// Takes a key from the list. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_manifest_key(&mut self, tenant: &Tenant, key: &SpkiDigest) -> Result<bool, StoreError> {
        self.remove_record(key_of_key(tenant, key)).await
    }

    /// Every key of a tenant, with what is wrong with a row instead of a key where it is not believed.
    ///
    /// # Errors
    /// As the store.
    pub async fn manifest_keys(&mut self, tenant: &Tenant) -> Result<Vec<Result<ManifestKey, StoreError>>, StoreError> {
        let keys = self.keys(Kind::ManifestKey, tenant);
        self.records(keys).await
    }

    /// Stores a manifest in place of the one of its name. True if it was not there already.
    ///
    /// # Errors
    /// [`StoreError::RevokedManifest`], [`StoreError::OlderManifest`], [`StoreError::SameSequence`], [`StoreError::RevokedRelease`] or
    /// [`StoreError::OlderRelease`]; then nothing changes.
    pub async fn add_manifest(
        &mut self,
        tenant: &Tenant,
        envelope: &[u8],
        verified: &VerifiedManifest,
        now: i64,
    ) -> Result<bool, StoreError> {
        let contents = verified.manifest().contents();
        let (name, found) = (contents.name.clone(), contents.sequence);
        let before: Option<StoredManifest> = self.record(&key(tenant, &name)).await?;
        let mut added_unix = now;
        if let Some(before) = &before {
            if found <= before.revoked_through {
                return Err(StoreError::RevokedManifest { name, through: before.revoked_through, found });
            }
            if found < before.sequence {
                return Err(StoreError::OlderManifest { name, newest: before.sequence, found });
            }
            if found == before.sequence {
                let payload = |bytes| SignedManifest::parse(bytes).map(|signed| signed.payload().to_vec()).ok();
                if payload(&before.envelope) != payload(envelope) {
                    return Err(StoreError::SameSequence { name, sequence: found });
                }
                added_unix = before.added_unix;
            }
            if let Some(refusal) = steps_back(before, contents) {
                return Err(refusal);
            }
            if before.workload != contents.workload {
                self.remove_record(about(tenant, &before.workload, &name)).await?;
            }
        }
        let stored = StoredManifest {
            name,
            sequence: found,
            revoked_through: before.as_ref().map_or(0, |before| before.revoked_through),
            workload: contents.workload,
            envelope: envelope.to_vec(),
            added_unix,
        };
        self.put_manifest(tenant, &stored).await?;
        Ok(before.is_none_or(|before| before.sequence != found))
    }

    pub(super) async fn put_manifest(&mut self, tenant: &Tenant, stored: &StoredManifest) -> Result<(), StoreError> {
        let about = about(tenant, &stored.workload, &stored.name);
        if !self.has(&about) {
            self.put_record(about, &About).await?;
        }
        self.put_record(key(tenant, &stored.name), stored).await
    }

    /// Revokes the manifest of a name, and with it every lower sequence; gives the last sequence revoked, or nothing if
    /// there is no manifest of that name.
    ///
    /// # Errors
    /// As the store.
    pub async fn revoke_manifest(&mut self, tenant: &Tenant, name: &str) -> Result<Option<u64>, StoreError> {
        let Some(mut manifest) = self.record::<StoredManifest>(&key(tenant, name)).await? else { return Ok(None) };
        manifest.revoked_through = manifest.revoked_through.max(manifest.sequence);
        self.put_record(key(tenant, name), &manifest).await?;
        Ok(Some(manifest.revoked_through))
    }

    /// Every manifest of a tenant, with what is wrong with a row instead of a manifest where it is not believed.
    ///
    /// # Errors
    /// As the store.
    pub async fn manifests(&mut self, tenant: &Tenant) -> Result<Vec<Result<StoredManifest, StoreError>>, StoreError> {
        let keys = self.keys(Kind::Manifest, tenant);
        self.records(keys).await
    }

    /// The manifests about one workload.
    ///
    /// # Errors
    /// As the store.
    pub async fn manifests_for(
        &mut self,
        tenant: &Tenant,
        workload: &WorkloadDigest,
    ) -> Result<Vec<Result<StoredManifest, StoreError>>, StoreError> {
        let mut about = self.keys(Kind::ManifestWorkload, tenant);
        about.retain(|key| key.part(0) == workload.as_bytes());
        let keys = about.iter().map(|about| RowKey::of(Kind::Manifest, tenant, &[about.part(1)])).collect();
        self.records(keys).await
    }
}

/// Why a manifest with a higher number is no newer release than what is here: its author's number says so, which a witness cannot change.
fn steps_back(before: &StoredManifest, contents: &Contents) -> Option<StoreError> {
    let stored = SignedManifest::parse(&before.envelope).and_then(|signed| signed.unverified()).ok();
    let newest = stored.as_ref().map_or(before.sequence, |stored| stored.contents().released());
    let (name, found) = (contents.name.clone(), contents.released());
    if contents.release.is_some() && found <= newest && before.is_revoked() {
        return Some(StoreError::RevokedRelease { name, found });
    }
    let back = stored.is_none_or(|stored| contents.goes_back_behind(stored.contents())) && found <= newest;
    back.then_some(StoreError::OlderRelease { name, newest, found })
}

pub(super) fn key(tenant: &Tenant, name: &str) -> RowKey {
    RowKey::of(Kind::Manifest, tenant, &[name.as_bytes()])
}

pub(super) fn key_of_key(tenant: &Tenant, key: &SpkiDigest) -> RowKey {
    RowKey::of(Kind::ManifestKey, tenant, &[key.as_bytes()])
}

pub(super) fn about(tenant: &Tenant, workload: &WorkloadDigest, name: &str) -> RowKey {
    RowKey::of(Kind::ManifestWorkload, tenant, &[workload.as_bytes(), name.as_bytes()])
}
