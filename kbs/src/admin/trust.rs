//! Whom a tenant believes beside its own list: authors of ID blocks, manifest keys, and the manifests they signed.
//!
//! One key has one job: a manifest key is no operator's and no listed author's.

use std::collections::HashSet;

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_verifier::{
    P384PublicKey, SignerRule, UnixTime,
    abi::{FamilyId, ImageId, KeyDigest, Measurement, SpkiDigest, WordError},
    manifest::{ManifestRefusal, ReferenceManifest, SignedManifest, VerifiedManifest},
    measure::{key_digest, key_structure},
};
use tonic::{Response, Status};

use super::{
    AdminService,
    changed::{named, of_signer, say},
    name, needed, seconds, sorted, store_status, tenant,
};
use crate::{
    operators::{Asking, Caller},
    store::{AuditEntry, Ledger, ManifestKey, Signer, StoredManifest},
    tenant::Tenant,
};

/// Rules and keys of one tenant: each is looked at for each release.
const LIST_LIMIT: usize = 64;

impl AdminService {
    pub(super) async fn references_listed(
        &self,
        message: wire::ListReferencesRequest,
    ) -> Result<Response<wire::ListReferencesResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let rows = self.view().await?.references(&tenant).await.map_err(store_status)?;
        let (rows, damaged) = sorted(rows);
        let references = rows.into_iter().map(|reference| wire::Reference {
            tenant: tenant.to_string(),
            measurement: reference.measurement.as_bytes().to_vec(),
            workload_digest: reference.workload.as_bytes().to_vec(),
            name: Some(reference.name).filter(|name| !name.is_empty()),
            expires_unix: seconds(reference.expires),
        });
        Ok(Response::new(wire::ListReferencesResponse { references: references.collect(), damaged }))
    }

    pub(super) async fn signer_added(
        &self,
        caller: Caller,
        message: wire::AddSignerRequest,
    ) -> Result<Response<wire::AddSignerResponse>, Status> {
        let message = message.signer.ok_or_else(|| Status::invalid_argument("signer: none was given"))?;
        let tenant = tenant(&message.tenant)?;
        let rule = SignerRule {
            author_key: word("author_key_digest", KeyDigest::try_from(message.author_key_digest.as_slice()))?,
            family_id: word("family_id", FamilyId::try_from(message.family_id.as_slice()))?,
            image_id: word("image_id", ImageId::try_from(message.image_id.as_slice()))?,
            minimum_guest_svn: message.minimum_guest_svn,
        };
        if rule.author_key.is_zero() {
            return Err(Status::invalid_argument("author_key_digest: a zero digest never matches"));
        }
        let expires = self.expiry(message.expires_unix)?;
        let signer = Signer { name: needed("name", message.name)?, rule, expires };
        let entry = AuditEntry {
            event: "signer.add",
            tenant: Some(tenant.to_string()),
            name: Some(signer.name.clone()),
            key: Some(rule.author_key.to_string()),
            ..AuditEntry::default()
        };
        let mut change = self.change(caller, entry).await?;
        let there = change.ledger.signers(&tenant).await.map_err(store_status)?;
        if there.len() >= LIST_LIMIT && !there.iter().flatten().any(|one| one.name == signer.name) {
            return Err(full("signers"));
        }
        let keys = change.ledger.manifest_keys(&tenant).await.map_err(store_status)?;
        if keys.iter().flatten().any(|one| author_digest(&one.key) == rule.author_key) {
            return Err(refuse("this author key is a manifest key of the tenant; one key has one job"));
        }
        // Of one that is damaged nothing is known.
        let before = there.iter().flatten().find(|one| one.name == signer.name);
        change.entry.changes = of_signer(before, &signer);
        let added = change.ledger.add_signer(&tenant, &signer).await.map_err(store_status)?;
        change.done_if(added, "replaced", wire::AddSignerResponse { added }).await
    }

    pub(super) async fn signers_listed(
        &self,
        message: wire::ListSignersRequest,
    ) -> Result<Response<wire::ListSignersResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let rows = self.view().await?.signers(&tenant).await.map_err(store_status)?;
        let (rows, damaged) = sorted(rows);
        let signers = rows.into_iter().map(|signer| wire::Signer {
            tenant: tenant.to_string(),
            name: signer.name,
            author_key_digest: signer.rule.author_key.as_bytes().to_vec(),
            family_id: signer.rule.family_id.as_bytes().to_vec(),
            image_id: signer.rule.image_id.as_bytes().to_vec(),
            minimum_guest_svn: signer.rule.minimum_guest_svn,
            expires_unix: seconds(signer.expires),
        });
        Ok(Response::new(wire::ListSignersResponse { signers: signers.collect(), damaged }))
    }

    pub(super) async fn signer_removed(
        &self,
        caller: Caller,
        message: wire::RemoveSignerRequest,
    ) -> Result<Response<wire::RemoveSignerResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let name = needed("name", message.name)?;
        let entry = AuditEntry {
            event: "signer.remove",
            tenant: Some(tenant.to_string()),
            name: Some(name.clone()),
            ..AuditEntry::default()
        };
        let mut change = self.change(caller, entry).await?;
        let existed = change.ledger.remove_signer(&tenant, &name).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::RemoveSignerResponse { existed }).await
    }

    pub(super) async fn manifest_key_added(
        &self,
        caller: Caller,
        message: wire::AddManifestKeyRequest,
    ) -> Result<Response<wire::AddManifestKeyResponse>, Status> {
        let message = message.key.ok_or_else(|| Status::invalid_argument("key: none was given"))?;
        let tenant = tenant(&message.tenant)?;
        let name = name("name", message.name)?;
        let key = P384PublicKey::from_spki_der(&message.public_key)
            .map_err(|error| Status::invalid_argument(format!("public_key: {error}")))?;
        let digest = key.spki_digest();
        let entry = AuditEntry {
            event: "manifest-key.add",
            tenant: Some(tenant.to_string()),
            name: name.clone(),
            key: Some(digest.to_string()),
            ..AuditEntry::default()
        };
        let key = ManifestKey { name: name.unwrap_or_default(), key };
        let mut change = self.change(caller, entry).await?;
        // Asked of the ledger, not of the listener's list: that one is refreshed after a commit.
        if self.operators.find(&mut change.ledger, &Asking::Key(digest)).await.map_err(store_status)?.is_some() {
            return Err(Status::invalid_argument("this is an operator's key; one key has one job"));
        }
        let there = change.ledger.manifest_keys(&tenant).await.map_err(store_status)?;
        if there.len() >= LIST_LIMIT && !there.iter().flatten().any(|one| one.key == key.key) {
            return Err(full("manifest keys"));
        }
        let before = there.iter().flatten().find(|one| one.key == key.key);
        say(&mut change.entry.changes, "name", before.map(|before| named(&before.name)), named(&key.name));
        let author = author_digest(&key.key);
        let signers = change.ledger.signers(&tenant).await.map_err(store_status)?;
        if signers.iter().flatten().any(|one| one.rule.author_key == author) {
            return Err(refuse("this key is a listed author's; one key has one job"));
        }
        let added = change.ledger.add_manifest_key(&tenant, &key).await.map_err(store_status)?;
        change.done_if(added, "replaced", wire::AddManifestKeyResponse { added }).await
    }

    pub(super) async fn manifest_keys_listed(
        &self,
        message: wire::ListManifestKeysRequest,
    ) -> Result<Response<wire::ListManifestKeysResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let rows = self.view().await?.manifest_keys(&tenant).await.map_err(store_status)?;
        let (rows, damaged) = sorted(rows);
        let keys = rows.into_iter().map(|one| wire::ManifestKey {
            tenant: tenant.to_string(),
            name: Some(one.name).filter(|name| !name.is_empty()),
            public_key: one.key.to_spki_der(),
        });
        Ok(Response::new(wire::ListManifestKeysResponse { keys: keys.collect(), damaged }))
    }

    pub(super) async fn manifest_key_removed(
        &self,
        caller: Caller,
        message: wire::RemoveManifestKeyRequest,
    ) -> Result<Response<wire::RemoveManifestKeyResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let key = word("spki_sha256", SpkiDigest::try_from(message.spki_sha256.as_slice()))?;
        let entry = AuditEntry {
            event: "manifest-key.remove",
            tenant: Some(tenant.to_string()),
            key: Some(key.to_string()),
            ..AuditEntry::default()
        };
        let mut change = self.change(caller, entry).await?;
        let existed = change.ledger.remove_manifest_key(&tenant, &key).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::RemoveManifestKeyResponse { existed }).await
    }

    pub(super) async fn manifest_added(
        &self,
        caller: Caller,
        message: wire::AddManifestRequest,
    ) -> Result<Response<wire::AddManifestResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let signed = SignedManifest::parse(&message.envelope)
            .map_err(|error| Status::invalid_argument(format!("envelope: {}", coffer_rim::chain(&error))))?;
        let entry = AuditEntry { event: "manifest.add", tenant: Some(tenant.to_string()), ..AuditEntry::default() };
        let mut change = self.change(caller, entry).await?;
        let now = change.now;
        // One that is not believed counts for nothing.
        let (keys, _) = sorted(change.ledger.manifest_keys(&tenant).await.map_err(store_status)?);
        let keys: Vec<_> = keys.into_iter().map(|one| one.key).collect();
        let verified = signed.verify(&keys).map_err(|error| refuse(&coffer_rim::chain(&error)))?;
        verified.current(UnixTime::from_secs(now)).map_err(|error| refuse(&error.to_string()))?;
        let contents = verified.manifest().contents();
        change.entry.name = Some(contents.name.clone());
        change.entry.manifest_sequence = Some(contents.sequence);
        change.entry.key = Some(verified.signer().to_string());
        let ledger = &mut change.ledger;
        let added = ledger.add_manifest(&tenant, &message.envelope, &verified, now).await.map_err(store_status)?;
        let stored = StoredManifest {
            name: contents.name.clone(),
            sequence: contents.sequence,
            revoked_through: 0,
            workload: contents.workload,
            envelope: Vec::new(),
            added_unix: now,
        };
        let manifest = Some(info(&stored, Ok(&verified), now));
        change.done_if(added, "there-already", wire::AddManifestResponse { added, manifest }).await
    }

    pub(super) async fn manifests_listed(
        &self,
        message: wire::ListManifestsRequest,
    ) -> Result<Response<wire::ListManifestsResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let now = self.clock.now();
        let mut view = self.view().await?;
        let (keys, mut damaged) = sorted(view.manifest_keys(&tenant).await.map_err(store_status)?);
        let keys: Vec<_> = keys.into_iter().map(|one| one.key).collect();
        let (rows, more) = sorted(view.manifests(&tenant).await.map_err(store_status)?);
        damaged.extend(more);
        drop(view);
        let manifests = rows.into_iter().map(|stored| match stored.verify(&keys) {
            Ok(verified) => info(&stored, Ok(&verified), now),
            Err(_) => info(&stored, Err(()), now),
        });
        Ok(Response::new(wire::ListManifestsResponse { manifests: manifests.collect(), damaged }))
    }

    pub(super) async fn manifest_revoked(
        &self,
        caller: Caller,
        message: wire::RevokeManifestRequest,
    ) -> Result<Response<wire::RevokeManifestResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let name = needed("name", message.name)?;
        let entry = AuditEntry {
            event: "manifest.revoke",
            tenant: Some(tenant.to_string()),
            name: Some(name.clone()),
            ..AuditEntry::default()
        };
        let mut change = self.change(caller, entry).await?;
        let revoked = change.ledger.revoke_manifest(&tenant, &name).await.map_err(store_status)?;
        change.entry.manifest_sequence = revoked;
        let now = UnixTime::from_secs(change.now);
        let answer = wire::RevokeManifestResponse {
            existed: revoked.is_some(),
            revoked_through: revoked.unwrap_or(0),
            ..still_admitted(&mut change.ledger, &tenant, &name, now).await?
        };
        change.done_if(revoked.is_some(), "nothing-there", answer).await
    }
}

/// How many measurements a revoked manifest has, and what admits how many of them for its workload all the same. Where its key is not
/// listed any more nobody knows which they were, and all that admits its workload is said.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
async fn still_admitted(
    ledger: &mut Ledger,
    tenant: &Tenant,
    name: &str,
    now: UnixTime,
) -> Result<wire::RevokeManifestResponse, Status> {
    let (keys, _) = sorted(ledger.manifest_keys(tenant).await.map_err(store_status)?);
    let keys: Vec<_> = keys.into_iter().map(|one| one.key).collect();
    let (all, _) = sorted(ledger.manifests(tenant).await.map_err(store_status)?);
    let Some(revoked) = all.iter().find(|manifest| manifest.name == name) else {
        return Ok(wire::RevokeManifestResponse::default());
    };
    let measurements = |manifest: &ReferenceManifest| -> HashSet<_> {
        manifest.contents().measurements.iter().map(|launch| launch.measurement).collect()
    };
    let had = revoked.verify(&keys).ok().map(|verified| measurements(verified.manifest()));
    let counts = |measurement: &Measurement| had.as_ref().is_none_or(|had| had.contains(measurement));
    let mut still = Vec::new();
    for other in all.iter().filter(|other| other.workload == revoked.workload && !other.is_revoked()) {
        let Ok(verified) = other.verify(&keys) else { continue };
        let Ok(admitted) = verified.current(now) else { continue };
        let count = measurements(admitted).iter().filter(|one| counts(one)).count();
        still.push(wire::StillAdmitted { manifest: other.name.clone(), measurements: count as u32 });
    }
    let (references, _) = sorted(ledger.references(tenant).await.map_err(store_status)?);
    let current = references.iter().filter(|one| one.workload == revoked.workload && !one.expires.is_over(now));
    let listed = current.filter(|one| counts(&one.measurement)).count();
    still.push(wire::StillAdmitted { manifest: String::new(), measurements: listed as u32 });
    still.retain(|one| one.measurements > 0);
    let (signers, _) = sorted(ledger.signers(tenant).await.map_err(store_status)?);
    let signers = signers.into_iter().filter(|one| one.is_current(now.0)).map(|one| one.name);
    Ok(wire::RevokeManifestResponse {
        measurements: had.map(|had| had.len() as u32),
        still_admitted: still,
        signers: signers.collect(),
        ..wire::RevokeManifestResponse::default()
    })
}

fn author_digest(key: &P384PublicKey) -> KeyDigest {
    key_digest(&key_structure(key))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn word<T>(field: &str, parsed: Result<T, WordError>) -> Result<T, Status> {
    parsed.map_err(|error| Status::invalid_argument(format!("{field}: {error}")))
}

fn refuse(why: &str) -> Status {
    Status::failed_precondition(why)
}

fn full(what: &str) -> Status {
    refuse(&format!("the tenant has {LIST_LIMIT} {what} already; remove one first"))
}

fn info(stored: &StoredManifest, verified: Result<&VerifiedManifest, ()>, now: i64) -> wire::ManifestInfo {
    let contents = verified.map(|verified| verified.manifest().contents()).ok();
    let state = match verified {
        _ if stored.is_revoked() => "revoked",
        Err(()) => "not-authentic",
        Ok(verified) => match verified.current(UnixTime::from_secs(now)) {
            Ok(_) => "current",
            Err(ManifestRefusal::FromTheFuture { .. }) => "from-the-future",
            Err(_) => "expired",
        },
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
