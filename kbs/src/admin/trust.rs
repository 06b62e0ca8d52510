//! Whom a tenant believes beside its own list: authors of ID blocks, manifest keys, and the manifests they signed.
//!
//! One key has one job: a manifest key is no operator's and no listed author's.

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_verifier::{
    P384PublicKey, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, KeyDigest, SpkiDigest, WordError},
    manifest::{SignedManifest, VerifiedManifest},
    measure::{key_digest, key_structure},
};
use tonic::{Response, Status};

use super::{AdminService, name, store_status, tenant};
use crate::{
    store::{AuditEntry, Ledger, ManifestKey, Signer, StoreError, StoredManifest},
    tenant::Tenant,
};

/// Rules and keys of one tenant: each is looked at for each release.
const LIST_LIMIT: usize = 64;

/// What stops a change inside its transaction: the store, or a rule of ours.
enum Stop {
    Store(StoreError),
    Rule(Status),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl AdminService {
    pub(super) async fn signer_added(
        &self,
        peer: String,
        message: wire::AddSignerRequest,
    ) -> Result<Response<wire::AddSignerResponse>, Status> {
        let message = message.signer.ok_or_else(|| Status::invalid_argument("no signer given"))?;
        let tenant = tenant(&message.tenant)?;
        let word = |error: WordError| Status::invalid_argument(error.to_string());
        let rule = SignerRule {
            author_key: KeyDigest::try_from(message.author_key_digest.as_slice()).map_err(word)?,
            family_id: FamilyId::try_from(message.family_id.as_slice()).map_err(word)?,
            image_id: ImageId::try_from(message.image_id.as_slice()).map_err(word)?,
            minimum_guest_svn: message.minimum_guest_svn,
        };
        if rule.author_key.is_zero() {
            return Err(Status::invalid_argument("a zero digest never matches"));
        }
        if message.name.is_empty() {
            return Err(Status::invalid_argument("a signer needs a name"));
        }
        name(&message.name)?;
        self.expiry(message.expires_unix)?;
        let signer = Signer { name: message.name, rule, expires_unix: message.expires_unix };
        let entry = AuditEntry {
            event: "signer.add",
            tenant: Some(tenant.to_string()),
            name: Some(signer.name.clone()),
            key: Some(rule.author_key.to_string()),
            ..AuditEntry::default()
        };
        self.changed(peer, entry, move |ledger, entry, _| {
            let there = ledger.signers(&tenant)?;
            if there.len() >= LIST_LIMIT && !there.iter().flatten().any(|one| one.name == signer.name) {
                return Err(full("signers"));
            }
            let keys = ledger.manifest_keys(&tenant)?;
            if keys.iter().flatten().any(|one| author_digest(&one.key) == rule.author_key) {
                return Err(refuse("this author key is a manifest key of the tenant; one key has one job"));
            }
            let added = ledger.add_signer(&tenant, &signer)?;
            if !added {
                entry.outcome = "replaced";
            }
            Ok(wire::AddSignerResponse { added })
        })
        .await
    }

    pub(super) async fn signers_listed(
        &self,
        message: wire::ListSignersRequest,
    ) -> Result<Response<wire::ListSignersResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        self.read(move |ledger| {
            let rows: Result<Vec<_>, _> = ledger.signers(&tenant)?.into_iter().collect();
            let signers = rows?.into_iter().map(|signer| wire::Signer {
                tenant: tenant.to_string(),
                name: signer.name,
                author_key_digest: signer.rule.author_key.as_bytes().to_vec(),
                family_id: signer.rule.family_id.as_bytes().to_vec(),
                image_id: signer.rule.image_id.as_bytes().to_vec(),
                minimum_guest_svn: signer.rule.minimum_guest_svn,
                expires_unix: signer.expires_unix,
            });
            Ok(wire::ListSignersResponse { signers: signers.collect() })
        })
        .await
    }

    pub(super) async fn signer_removed(
        &self,
        peer: String,
        message: wire::RemoveSignerRequest,
    ) -> Result<Response<wire::RemoveSignerResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        name(&message.name)?;
        let entry = AuditEntry {
            event: "signer.remove",
            tenant: Some(tenant.to_string()),
            name: Some(message.name.clone()),
            ..AuditEntry::default()
        };
        self.record(peer, entry, move |ledger, entry, _| {
            let existed = ledger.remove_signer(&tenant, &message.name)?;
            if !existed {
                entry.outcome = "nothing-there";
            }
            Ok(wire::RemoveSignerResponse { existed })
        })
        .await
    }

    pub(super) async fn manifest_key_added(
        &self,
        peer: String,
        message: wire::AddManifestKeyRequest,
    ) -> Result<Response<wire::AddManifestKeyResponse>, Status> {
        let message = message.key.ok_or_else(|| Status::invalid_argument("no key given"))?;
        let tenant = tenant(&message.tenant)?;
        name(&message.name)?;
        let key = P384PublicKey::from_spki_der(&message.public_key)
            .map_err(|error| Status::invalid_argument(format!("manifest key: {error}")))?;
        let digest = key.spki_digest();
        if self.admins.contains_key(&digest) {
            return Err(Status::invalid_argument("this is an operator's key; one key has one job"));
        }
        let entry = AuditEntry {
            event: "manifest-key.add",
            tenant: Some(tenant.to_string()),
            name: Some(message.name.clone()),
            key: Some(digest.to_string()),
            ..AuditEntry::default()
        };
        let key = ManifestKey { name: message.name, key };
        self.changed(peer, entry, move |ledger, entry, _| {
            let there = ledger.manifest_keys(&tenant)?;
            if there.len() >= LIST_LIMIT && !there.iter().flatten().any(|one| one.key == key.key) {
                return Err(full("manifest keys"));
            }
            let author = author_digest(&key.key);
            if ledger.signers(&tenant)?.iter().flatten().any(|one| one.rule.author_key == author) {
                return Err(refuse("this key is a listed author's; one key has one job"));
            }
            let added = ledger.add_manifest_key(&tenant, &key)?;
            if !added {
                entry.outcome = "replaced";
            }
            Ok(wire::AddManifestKeyResponse { added })
        })
        .await
    }

    pub(super) async fn manifest_keys_listed(
        &self,
        message: wire::ListManifestKeysRequest,
    ) -> Result<Response<wire::ListManifestKeysResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        self.read(move |ledger| {
            let rows: Result<Vec<_>, _> = ledger.manifest_keys(&tenant)?.into_iter().collect();
            let keys = rows?.into_iter().map(|one| wire::ManifestKey {
                tenant: tenant.to_string(),
                name: one.name,
                public_key: one.key.to_spki_der(),
            });
            Ok(wire::ListManifestKeysResponse { keys: keys.collect() })
        })
        .await
    }

    pub(super) async fn manifest_key_removed(
        &self,
        peer: String,
        message: wire::RemoveManifestKeyRequest,
    ) -> Result<Response<wire::RemoveManifestKeyResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let key = SpkiDigest::try_from(message.spki_sha256.as_slice())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let entry = AuditEntry {
            event: "manifest-key.remove",
            tenant: Some(tenant.to_string()),
            key: Some(key.to_string()),
            ..AuditEntry::default()
        };
        self.record(peer, entry, move |ledger, entry, _| {
            let existed = ledger.remove_manifest_key(&tenant, &key)?;
            if !existed {
                entry.outcome = "nothing-there";
            }
            Ok(wire::RemoveManifestKeyResponse { existed })
        })
        .await
    }

    pub(super) async fn manifest_added(
        &self,
        peer: String,
        message: wire::AddManifestRequest,
    ) -> Result<Response<wire::AddManifestResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let signed = SignedManifest::parse(&message.envelope)
            .map_err(|error| Status::invalid_argument(coffer_rim::chain(&error)))?;
        let entry = AuditEntry { event: "manifest.add", tenant: Some(tenant.to_string()), ..AuditEntry::default() };
        self.changed(peer, entry, move |ledger, entry, now| {
            let keys = keys(ledger, &tenant)?;
            let verified = signed.verify(&keys).map_err(|error| refuse(&coffer_rim::chain(&error)))?;
            verified.current(UnixTime::from_secs(now)).map_err(|error| refuse(&error.to_string()))?;
            let contents = verified.manifest().contents();
            entry.name = Some(contents.name.clone());
            entry.manifest_sequence = Some(contents.sequence);
            entry.key = Some(verified.signer().to_string());
            let added = ledger.add_manifest(&tenant, &message.envelope, &verified, now)?;
            if !added {
                entry.outcome = "there-already";
            }
            let stored = StoredManifest {
                name: contents.name.clone(),
                sequence: contents.sequence,
                revoked_through: 0,
                workload: contents.workload,
                envelope: Vec::new(),
                added_unix: now,
            };
            Ok(wire::AddManifestResponse { added, manifest: Some(info(&stored, Ok(&verified), now)) })
        })
        .await
    }

    pub(super) async fn manifests_listed(
        &self,
        message: wire::ListManifestsRequest,
    ) -> Result<Response<wire::ListManifestsResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let now = self.clock.now();
        self.read(move |ledger| {
            let keys: Result<Vec<_>, _> = ledger.manifest_keys(&tenant)?.into_iter().collect();
            let keys: Vec<_> = keys?.into_iter().map(|one| one.key).collect();
            let rows: Result<Vec<_>, _> = ledger.manifests(&tenant)?.into_iter().collect();
            let manifests = rows?.into_iter().map(|stored| match stored.verify(&keys) {
                Ok(verified) => info(&stored, Ok(&verified), now),
                Err(_) => info(&stored, Err(()), now),
            });
            Ok(wire::ListManifestsResponse { manifests: manifests.collect() })
        })
        .await
    }

    pub(super) async fn manifest_revoked(
        &self,
        peer: String,
        message: wire::RevokeManifestRequest,
    ) -> Result<Response<wire::RevokeManifestResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        name(&message.name)?;
        let entry = AuditEntry {
            event: "manifest.revoke",
            tenant: Some(tenant.to_string()),
            name: Some(message.name.clone()),
            ..AuditEntry::default()
        };
        self.record(peer, entry, move |ledger, entry, _| {
            let revoked = ledger.revoke_manifest(&tenant, &message.name)?;
            entry.manifest_sequence = revoked;
            if revoked.is_none() {
                entry.outcome = "nothing-there";
            }
            Ok(wire::RevokeManifestResponse { existed: revoked.is_some(), revoked_through: revoked.unwrap_or(0) })
        })
        .await
    }

    /// [`AdminService::record`] for work that has rules of its own; when one is broken nothing is written.
    async fn changed<T: Send + 'static>(
        &self,
        peer: String,
        entry: AuditEntry,
        work: impl FnOnce(&Ledger<'_>, &mut AuditEntry, i64) -> Result<T, Stop> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        self.record_or(peer, entry, work, |stop| match stop {
            Stop::Store(error) => store_status(&error),
            Stop::Rule(status) => status,
        })
        .await
    }
}

fn keys(ledger: &Ledger<'_>, tenant: &Tenant) -> Result<Vec<P384PublicKey>, StoreError> {
    ledger.manifest_keys(tenant)?.into_iter().map(|row| row.map(|one| one.key)).collect()
}

fn author_digest(key: &P384PublicKey) -> KeyDigest {
    key_digest(&key_structure(key))
}

fn refuse(why: &str) -> Stop {
    Stop::Rule(Status::failed_precondition(why))
}

fn full(what: &str) -> Stop {
    refuse(&format!("the tenant has {LIST_LIMIT} {what} already; remove one first"))
}

fn info(stored: &StoredManifest, verified: Result<&VerifiedManifest, ()>, now: i64) -> wire::ManifestInfo {
    let contents = verified.map(|verified| verified.manifest().contents()).ok();
    let state = match verified {
        _ if stored.is_revoked() => "revoked",
        Err(()) => "not-authentic",
        Ok(verified) if verified.current(UnixTime::from_secs(now)).is_err() => "expired",
        Ok(_) => "current",
    };
    wire::ManifestInfo {
        name: stored.name.clone(),
        sequence: stored.sequence,
        revoked_through: stored.revoked_through,
        workload_digest: stored.workload.as_bytes().to_vec(),
        created_unix: contents.map_or(0, |contents| contents.created.0),
        expires_unix: contents.map_or(0, |contents| contents.expires.0),
        key: verified.map(|verified| verified.signer().as_bytes().to_vec()).unwrap_or_default(),
        measurements: contents.map_or(0, |contents| contents.measurements.len() as u32),
        added_unix: stored.added_unix,
        state: state.into(),
    }
}
