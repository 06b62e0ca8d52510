//! The admin API: secrets in, references in, audit out. Values never come back; each call leaves an audit line.
//!
//! Reached only over the admin listener, by keys the configuration lists.

mod trust;

use std::{collections::BTreeMap, sync::Arc};

use coffer_kbs_client::{ResourcePath, kbs::admin::v1 as wire};
use coffer_ratls::{connection, denied};
use coffer_verifier::abi::{Measurement, SpkiDigest, WorkloadDigest};
use tonic::{Code, Request, Response, Status};
use zeroize::Zeroizing;

use crate::{
    audit_log::AuditLog,
    clock::Clock,
    policies::{DEFAULT, ReleasePolicies},
    store::{AuditEntry, GuestFacts, Ledger, NewSecret, Reference, Store, StoreError},
    tenant::Tenant,
};

/// Longest secret value, in bytes.
pub const VALUE_LIMIT: usize = 1024 * 1024;
const NAME_LIMIT: usize = 128;
const AUDIT_LIMIT: u32 = 10_000;

/// The service behind the admin listener.
#[derive(Clone)]
pub struct AdminService {
    pub(crate) store: Arc<Store>,
    pub(crate) policies: Arc<ReleasePolicies>,
    pub(crate) admins: Arc<BTreeMap<SpkiDigest, String>>,
    pub(crate) log: AuditLog,
    pub(crate) clock: Clock,
}

impl AdminService {
    /// Runs `work` and appends `entry` in one transaction, off the event loop.
    async fn record<T: Send + 'static>(
        &self,
        peer: String,
        entry: AuditEntry,
        work: impl FnOnce(&Ledger<'_>, &mut AuditEntry, i64) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        self.record_or(peer, entry, work, |error| store_status(&error)).await
    }

    /// [`AdminService::record`] for work that fails in its own way.
    async fn record_or<T: Send + 'static, E: From<StoreError> + Send + 'static>(
        &self,
        peer: String,
        entry: AuditEntry,
        work: impl FnOnce(&Ledger<'_>, &mut AuditEntry, i64) -> Result<T, E> + Send + 'static,
        status: impl FnOnce(E) -> Status,
    ) -> Result<Response<T>, Status> {
        let (store, log, now) = (self.store.clone(), self.log.clone(), self.clock.now());
        let outcome = tokio::task::spawn_blocking(move || {
            let mut entry = AuditEntry { outcome: "done", peer, id: fresh_id(), ..entry };
            store.transact(|ledger| {
                let value = work(ledger, &mut entry, now)?;
                let line = ledger.append_audit(&entry, now)?;
                Ok::<_, E>((value, line))
            })
        })
        .await
        .map_err(|_| Status::internal("the call did not end"))?;
        let (value, line) = outcome.map_err(status)?;
        log.write(&line);
        Ok(Response::new(value))
    }

    /// Reads without an audit line: listings change nothing and show no value.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let store = self.store.clone();
        let outcome = tokio::task::spawn_blocking(move || store.transact(work))
            .await
            .map_err(|_| Status::internal("the call did not end"))?;
        outcome.map(Response::new).map_err(|error| store_status(&error))
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn expiry(&self, expires_unix: i64) -> Result<(), Status> {
        if expires_unix < 0 || (expires_unix > 0 && expires_unix <= self.clock.now()) {
            return Err(Status::invalid_argument("expiry lies in the past"));
        }
        Ok(())
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn peer<R>(&self, request: &Request<R>) -> Result<String, Status> {
        let state = connection(request)?;
        let name = self.admins.get(state.peer_spki());
        // The handshake let in only listed keys; a key without a name would be a defect of ours.
        name.cloned().ok_or_else(|| denied(Code::PermissionDenied, "not-an-admin").0)
    }
}

#[tonic::async_trait]
impl wire::admin_server::Admin for AdminService {
    async fn put_secret(
        &self,
        request: Request<wire::PutSecretRequest>,
    ) -> Result<Response<wire::PutSecretResponse>, Status> {
        let peer = self.peer(&request)?;
        let message = request.into_inner();
        let value = Zeroizing::new(message.value);
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        if value.is_empty() {
            return Err(Status::invalid_argument("value is empty"));
        }
        if value.len() > VALUE_LIMIT {
            return Err(Status::invalid_argument(format!("value has {} bytes, at most {VALUE_LIMIT}", value.len())));
        }
        let policy = if message.policy.is_empty() { DEFAULT.to_owned() } else { message.policy };
        if !self.policies.has(&policy) {
            let known = self.policies.names().join(", ");
            return Err(Status::invalid_argument(format!("no policy of that name is loaded; there are: {known}")));
        }
        let entry = AuditEntry {
            event: "secret.put",
            tenant: Some(tenant.to_string()),
            path: Some(path.to_string()),
            policy: Some(policy.clone()),
            ..AuditEntry::default()
        };
        let (allow_simulated, expected_version) = (message.allow_simulated, message.expected_version);
        self.record(peer, entry, move |ledger, entry, now| {
            let new = NewSecret {
                tenant: &tenant,
                path: &path,
                value: &value,
                allow_simulated,
                policy: &policy,
                expected_version,
            };
            let version = ledger.put_secret(new, now)?;
            entry.version = Some(version);
            entry.allow_simulated = Some(allow_simulated);
            Ok(wire::PutSecretResponse { version })
        })
        .await
    }

    async fn list_secrets(
        &self,
        request: Request<wire::ListSecretsRequest>,
    ) -> Result<Response<wire::ListSecretsResponse>, Status> {
        self.peer(&request)?;
        let tenant = tenant(&request.into_inner().tenant)?;
        self.read(move |ledger| {
            let secrets = ledger.secrets(&tenant)?.into_iter().map(|info| wire::SecretInfo {
                path: info.path,
                version: info.secret.version,
                allow_simulated: info.secret.allow_simulated,
                policy: info.secret.policy,
                created_unix: info.secret.created_unix,
                length: info.length,
            });
            Ok(wire::ListSecretsResponse { secrets: secrets.collect() })
        })
        .await
    }

    async fn delete_secret(
        &self,
        request: Request<wire::DeleteSecretRequest>,
    ) -> Result<Response<wire::DeleteSecretResponse>, Status> {
        let peer = self.peer(&request)?;
        let message = request.into_inner();
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        let entry = AuditEntry {
            event: "secret.delete",
            tenant: Some(tenant.to_string()),
            path: Some(path.to_string()),
            ..AuditEntry::default()
        };
        self.record(peer, entry, move |ledger, entry, now| {
            let existed = ledger.delete_secret(&tenant, &path, now)?;
            if !existed {
                entry.outcome = "nothing-there";
            }
            Ok(wire::DeleteSecretResponse { existed })
        })
        .await
    }

    async fn add_reference(
        &self,
        request: Request<wire::AddReferenceRequest>,
    ) -> Result<Response<wire::AddReferenceResponse>, Status> {
        let peer = self.peer(&request)?;
        let message = request.into_inner().reference.ok_or_else(|| Status::invalid_argument("no reference given"))?;
        let tenant = tenant(&message.tenant)?;
        let (measurement, workload) = pair(&message.measurement, &message.workload_digest)?;
        if measurement.is_zero() || workload.is_zero() {
            return Err(Status::invalid_argument("a zero digest never matches"));
        }
        name(&message.name)?;
        self.expiry(message.expires_unix)?;
        let reference = Reference { measurement, workload, name: message.name, expires_unix: message.expires_unix };
        let entry = reference_entry("reference.add", &tenant, &measurement, &workload);
        self.record(peer, entry, move |ledger, entry, _| {
            let added = ledger.add_reference(&tenant, &reference)?;
            if !added {
                entry.outcome = "replaced";
            }
            Ok(wire::AddReferenceResponse { added })
        })
        .await
    }

    async fn list_references(
        &self,
        request: Request<wire::ListReferencesRequest>,
    ) -> Result<Response<wire::ListReferencesResponse>, Status> {
        self.peer(&request)?;
        let tenant = tenant(&request.into_inner().tenant)?;
        self.read(move |ledger| {
            let rows: Result<Vec<_>, _> = ledger.references(&tenant)?.into_iter().collect();
            let references = rows?.into_iter().map(|reference| wire::Reference {
                tenant: tenant.to_string(),
                measurement: reference.measurement.as_bytes().to_vec(),
                workload_digest: reference.workload.as_bytes().to_vec(),
                name: reference.name,
                expires_unix: reference.expires_unix,
            });
            Ok(wire::ListReferencesResponse { references: references.collect() })
        })
        .await
    }

    async fn remove_reference(
        &self,
        request: Request<wire::RemoveReferenceRequest>,
    ) -> Result<Response<wire::RemoveReferenceResponse>, Status> {
        let peer = self.peer(&request)?;
        let message = request.into_inner();
        let tenant = tenant(&message.tenant)?;
        let (measurement, workload) = pair(&message.measurement, &message.workload_digest)?;
        let entry = reference_entry("reference.remove", &tenant, &measurement, &workload);
        self.record(peer, entry, move |ledger, entry, _| {
            let existed = ledger.remove_reference(&tenant, &measurement, &workload)?;
            if !existed {
                entry.outcome = "nothing-there";
            }
            Ok(wire::RemoveReferenceResponse { existed })
        })
        .await
    }

    async fn add_signer(
        &self,
        request: Request<wire::AddSignerRequest>,
    ) -> Result<Response<wire::AddSignerResponse>, Status> {
        self.signer_added(self.peer(&request)?, request.into_inner()).await
    }

    async fn list_signers(
        &self,
        request: Request<wire::ListSignersRequest>,
    ) -> Result<Response<wire::ListSignersResponse>, Status> {
        self.peer(&request)?;
        self.signers_listed(request.into_inner()).await
    }

    async fn remove_signer(
        &self,
        request: Request<wire::RemoveSignerRequest>,
    ) -> Result<Response<wire::RemoveSignerResponse>, Status> {
        self.signer_removed(self.peer(&request)?, request.into_inner()).await
    }

    async fn add_manifest_key(
        &self,
        request: Request<wire::AddManifestKeyRequest>,
    ) -> Result<Response<wire::AddManifestKeyResponse>, Status> {
        self.manifest_key_added(self.peer(&request)?, request.into_inner()).await
    }

    async fn list_manifest_keys(
        &self,
        request: Request<wire::ListManifestKeysRequest>,
    ) -> Result<Response<wire::ListManifestKeysResponse>, Status> {
        self.peer(&request)?;
        self.manifest_keys_listed(request.into_inner()).await
    }

    async fn remove_manifest_key(
        &self,
        request: Request<wire::RemoveManifestKeyRequest>,
    ) -> Result<Response<wire::RemoveManifestKeyResponse>, Status> {
        self.manifest_key_removed(self.peer(&request)?, request.into_inner()).await
    }

    async fn add_manifest(
        &self,
        request: Request<wire::AddManifestRequest>,
    ) -> Result<Response<wire::AddManifestResponse>, Status> {
        self.manifest_added(self.peer(&request)?, request.into_inner()).await
    }

    async fn list_manifests(
        &self,
        request: Request<wire::ListManifestsRequest>,
    ) -> Result<Response<wire::ListManifestsResponse>, Status> {
        self.peer(&request)?;
        self.manifests_listed(request.into_inner()).await
    }

    async fn revoke_manifest(
        &self,
        request: Request<wire::RevokeManifestRequest>,
    ) -> Result<Response<wire::RevokeManifestResponse>, Status> {
        self.manifest_revoked(self.peer(&request)?, request.into_inner()).await
    }

    async fn audit(&self, request: Request<wire::AuditRequest>) -> Result<Response<wire::AuditResponse>, Status> {
        self.peer(&request)?;
        let message = request.into_inner();
        let limit = if message.limit == 0 { 1000 } else { message.limit.min(AUDIT_LIMIT) };
        self.read(move |ledger| Ok(wire::AuditResponse { lines: ledger.audit_lines(message.from_sequence, limit)? }))
            .await
    }
}

fn reference_entry(
    event: &'static str,
    tenant: &Tenant,
    measurement: &Measurement,
    workload: &WorkloadDigest,
) -> AuditEntry {
    let guest = GuestFacts {
        measurement: measurement.to_string(),
        workload_digest: workload.to_string(),
        ..GuestFacts::default()
    };
    AuditEntry { event, tenant: Some(tenant.to_string()), guest: Some(guest), ..AuditEntry::default() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn tenant(text: &str) -> Result<Tenant, Status> {
    Tenant::parse(text).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn name(text: &str) -> Result<(), Status> {
    if text.len() > NAME_LIMIT || text.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!("name has control characters or over {NAME_LIMIT} bytes")));
    }
    Ok(())
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn path(text: &str) -> Result<ResourcePath, Status> {
    text.parse().map_err(|error: coffer_kbs_client::PathError| Status::invalid_argument(error.to_string()))
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn pair(measurement: &[u8], workload: &[u8]) -> Result<(Measurement, WorkloadDigest), Status> {
    let bad = |error: coffer_verifier::abi::WordError| Status::invalid_argument(error.to_string());
    Ok((Measurement::try_from(measurement).map_err(bad)?, WorkloadDigest::try_from(workload).map_err(bad)?))
}

/// The operator may know what is wrong with the store.
fn store_status(error: &StoreError) -> Status {
    let code = match error {
        StoreError::Version { .. }
        | StoreError::OlderManifest { .. }
        | StoreError::RevokedManifest { .. }
        | StoreError::SameSequence { .. } => Code::FailedPrecondition,
        StoreError::Tampered { .. } | StoreError::Audit(_) => Code::DataLoss,
        _ => Code::Internal,
    };
    if code != Code::FailedPrecondition {
        tracing::error!(error = %coffer_rim::chain(error), "admin call failed");
    }
    Status::new(code, format!("{}; {}", coffer_rim::chain(error), error.hint()))
}

fn fresh_id() -> String {
    let mut bytes = [0; 8];
    // The id only joins lines for a reader.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}
