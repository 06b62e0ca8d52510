//! The admin API: secrets in, references in, audit out. Values never come back; each call leaves an audit line.
//!
//! Reached only over the admin listener, by keys the configuration or the ledger lists, each for what `roles` says.

mod admins;
mod callers;
mod certificates;
mod change;
mod changed;
mod crls;
mod dry_run;
mod policies;
mod policy_work;
mod revocations;
mod sealing;
mod secrets;
mod terms;
mod trail;
mod trust;
mod volumes;
mod words;

use std::{collections::BTreeSet, sync::Arc};

use self::changed::of_reference;
pub(crate) use self::words::fresh_id;
use self::words::{name, needed, non_zero, pair, reference_entry, seconds, sorted, store_status, tenant};
use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_verifier::{Expiry, UnixTime};
use tonic::{Request, Response, Status};

use crate::{
    aside::Aside,
    audit_log::AuditLog,
    clock::Clock,
    guest::GuestVerifier,
    guests::Guests,
    limits::Buckets,
    operators::{Asking, Operators},
    policies::ReleasePolicies,
    refusals::Refusals,
    store::{AuditEntry, Ledger, Reference, Store, StoreError},
    tenant::Tenant,
};

/// Longest secret value, in bytes.
pub const VALUE_LIMIT: usize = 1024 * 1024;

/// The service behind the admin listener.
#[derive(Clone)]
pub struct AdminService {
    pub(crate) store: Arc<Store>,
    pub(crate) policies: Arc<ReleasePolicies>,
    pub(crate) operators: Operators,
    /// Tenants the configuration lists: they are there without having been created.
    pub(crate) configured_tenants: Arc<BTreeSet<Tenant>>,
    /// Who is attested now.
    pub(crate) guests: Guests,
    pub(crate) verifier: Arc<GuestVerifier>,
    /// Refusals that do not stand in the trail yet.
    pub(crate) refusals: Arc<Refusals>,
    /// Calls of one operator that its roles do not allow.
    pub(crate) refused: Arc<Buckets<Asking>>,
    /// What reads much and writes nothing.
    pub(crate) aside: Aside,
    /// Policies that are parsed and tried now.
    pub(crate) policy_work: Arc<policy_work::PolicyWork>,
    pub(crate) log: AuditLog,
    pub(crate) clock: Clock,
}

impl AdminService {
    /// Reads without an audit line: listings change nothing and show no value.
    async fn view(&self) -> Result<Ledger, Status> {
        self.store.read().await.map_err(store_status)
    }

    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn expiry(&self, expires_unix: Option<i64>) -> Result<Expiry, Status> {
        let Some(seconds) = expires_unix else { return Ok(Expiry::Never) };
        let end = UnixTime::from_secs(seconds);
        if seconds <= 0 || Expiry::At(end).is_over(UnixTime::from_secs(self.clock.now())) {
            return Err(Status::invalid_argument(
                "expires_unix: the expiry (--expires) lies in the past; leave it out for none",
            ));
        }
        Ok(Expiry::At(end))
    }
}

#[tonic::async_trait]
impl wire::admin_server::Admin for AdminService {
    async fn put_secret(
        &self,
        request: Request<wire::PutSecretRequest>,
    ) -> Result<Response<wire::PutSecretResponse>, Status> {
        self.secret_put(self.caller(&request, "PutSecret", |message| &message.tenant).await?, request.into_inner())
            .await
    }

    async fn list_secrets(
        &self,
        request: Request<wire::ListSecretsRequest>,
    ) -> Result<Response<wire::ListSecretsResponse>, Status> {
        let caller = self.caller(&request, "ListSecrets", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.secrets_listed(request.into_inner()).await }).await
    }

    async fn get_secret_meta(
        &self,
        request: Request<wire::GetSecretMetaRequest>,
    ) -> Result<Response<wire::GetSecretMetaResponse>, Status> {
        let caller = self.caller(&request, "GetSecretMeta", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.secret_described(request.into_inner()).await }).await
    }

    async fn delete_secret(
        &self,
        request: Request<wire::DeleteSecretRequest>,
    ) -> Result<Response<wire::DeleteSecretResponse>, Status> {
        self.secret_deleted(
            self.caller(&request, "DeleteSecret", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn undelete_secret(
        &self,
        request: Request<wire::UndeleteSecretRequest>,
    ) -> Result<Response<wire::UndeleteSecretResponse>, Status> {
        self.secret_undeleted(
            self.caller(&request, "UndeleteSecret", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn destroy_secret(
        &self,
        request: Request<wire::DestroySecretRequest>,
    ) -> Result<Response<wire::DestroySecretResponse>, Status> {
        self.secret_destroyed(
            self.caller(&request, "DestroySecret", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn update_secret(
        &self,
        request: Request<wire::UpdateSecretRequest>,
    ) -> Result<Response<wire::UpdateSecretResponse>, Status> {
        self.secret_updated(
            self.caller(&request, "UpdateSecret", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn add_reference(
        &self,
        request: Request<wire::AddReferenceRequest>,
    ) -> Result<Response<wire::AddReferenceResponse>, Status> {
        let caller = self
            .caller(&request, "AddReference", |message| {
                message.reference.as_ref().map_or("", |one| one.tenant.as_str())
            })
            .await?;
        let message = request.into_inner().reference;
        let message = message.ok_or_else(|| Status::invalid_argument("reference: none was given"))?;
        let tenant = tenant(&message.tenant)?;
        let (measurement, workload) = pair(&message.measurement, &message.workload_digest)?;
        let name = name("name", message.name)?;
        let expires = self.expiry(message.expires_unix)?;
        let reference = Reference { measurement, workload, name: name.unwrap_or_default(), expires };
        let named = Some(reference.name.clone()).filter(|name| !name.is_empty());
        let entry = AuditEntry { name: named, ..reference_entry("reference.add", &tenant, &measurement, &workload) };
        let mut change = self.change(caller, entry).await?;
        let before = match change.ledger.reference(&tenant, &measurement, &workload).await {
            // Adding it anew is how a damaged one is mended: of such a one nothing is known.
            Err(StoreError::Tampered { .. }) => None,
            other => other.map_err(store_status)?,
        };
        change.entry.changes = of_reference(before.as_ref(), &reference);
        let added = change.ledger.add_reference(&tenant, &reference).await.map_err(store_status)?;
        change.done_if(added, "replaced", wire::AddReferenceResponse { added }).await
    }

    async fn list_references(
        &self,
        request: Request<wire::ListReferencesRequest>,
    ) -> Result<Response<wire::ListReferencesResponse>, Status> {
        let caller = self.caller(&request, "ListReferences", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.references_listed(request.into_inner()).await }).await
    }

    async fn remove_reference(
        &self,
        request: Request<wire::RemoveReferenceRequest>,
    ) -> Result<Response<wire::RemoveReferenceResponse>, Status> {
        let caller = self.caller(&request, "RemoveReference", |message| &message.tenant).await?;
        let message = request.into_inner();
        let tenant = tenant(&message.tenant)?;
        let (measurement, workload) = pair(&message.measurement, &message.workload_digest)?;
        let entry = reference_entry("reference.remove", &tenant, &measurement, &workload);
        let mut change = self.change(caller, entry).await?;
        let existed = change.ledger.remove_reference(&tenant, &measurement, &workload).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::RemoveReferenceResponse { existed }).await
    }

    async fn add_signer(
        &self,
        request: Request<wire::AddSignerRequest>,
    ) -> Result<Response<wire::AddSignerResponse>, Status> {
        self.signer_added(
            self.caller(&request, "AddSigner", |message| message.signer.as_ref().map_or("", |one| one.tenant.as_str()))
                .await?,
            request.into_inner(),
        )
        .await
    }

    async fn list_signers(
        &self,
        request: Request<wire::ListSignersRequest>,
    ) -> Result<Response<wire::ListSignersResponse>, Status> {
        let caller = self.caller(&request, "ListSigners", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.signers_listed(request.into_inner()).await }).await
    }

    async fn remove_signer(
        &self,
        request: Request<wire::RemoveSignerRequest>,
    ) -> Result<Response<wire::RemoveSignerResponse>, Status> {
        self.signer_removed(
            self.caller(&request, "RemoveSigner", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn add_manifest_key(
        &self,
        request: Request<wire::AddManifestKeyRequest>,
    ) -> Result<Response<wire::AddManifestKeyResponse>, Status> {
        self.manifest_key_added(
            self.caller(&request, "AddManifestKey", |message| {
                message.key.as_ref().map_or("", |one| one.tenant.as_str())
            })
            .await?,
            request.into_inner(),
        )
        .await
    }

    async fn list_manifest_keys(
        &self,
        request: Request<wire::ListManifestKeysRequest>,
    ) -> Result<Response<wire::ListManifestKeysResponse>, Status> {
        let caller = self.caller(&request, "ListManifestKeys", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.manifest_keys_listed(request.into_inner()).await }).await
    }

    async fn remove_manifest_key(
        &self,
        request: Request<wire::RemoveManifestKeyRequest>,
    ) -> Result<Response<wire::RemoveManifestKeyResponse>, Status> {
        self.manifest_key_removed(
            self.caller(&request, "RemoveManifestKey", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn add_manifest(
        &self,
        request: Request<wire::AddManifestRequest>,
    ) -> Result<Response<wire::AddManifestResponse>, Status> {
        self.manifest_added(
            self.caller(&request, "AddManifest", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn list_manifests(
        &self,
        request: Request<wire::ListManifestsRequest>,
    ) -> Result<Response<wire::ListManifestsResponse>, Status> {
        let caller = self.caller(&request, "ListManifests", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.manifests_listed(request.into_inner()).await }).await
    }

    async fn revoke_manifest(
        &self,
        request: Request<wire::RevokeManifestRequest>,
    ) -> Result<Response<wire::RevokeManifestResponse>, Status> {
        self.manifest_revoked(
            self.caller(&request, "RevokeManifest", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn put_sealing_context(
        &self,
        request: Request<wire::PutSealingContextRequest>,
    ) -> Result<Response<wire::PutSealingContextResponse>, Status> {
        self.sealing_context_put(
            self.caller(&request, "PutSealingContext", |message| {
                message.context.as_ref().map_or("", |one| one.tenant.as_str())
            })
            .await?,
            request.into_inner(),
        )
        .await
    }

    async fn list_sealing_contexts(
        &self,
        request: Request<wire::ListSealingContextsRequest>,
    ) -> Result<Response<wire::ListSealingContextsResponse>, Status> {
        let caller = self.caller(&request, "ListSealingContexts", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.sealing_contexts_listed(request.into_inner()).await }).await
    }

    async fn remove_sealing_context(
        &self,
        request: Request<wire::RemoveSealingContextRequest>,
    ) -> Result<Response<wire::RemoveSealingContextResponse>, Status> {
        self.sealing_context_removed(
            self.caller(&request, "RemoveSealingContext", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn list_volumes(
        &self,
        request: Request<wire::ListVolumesRequest>,
    ) -> Result<Response<wire::ListVolumesResponse>, Status> {
        let caller = self.caller(&request, "ListVolumes", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.volumes_listed(request.into_inner()).await }).await
    }

    async fn allow_volume(
        &self,
        request: Request<wire::AllowVolumeRequest>,
    ) -> Result<Response<wire::AllowVolumeResponse>, Status> {
        self.volume_allowed(
            self.caller(&request, "AllowVolume", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn put_certificate_profile(
        &self,
        request: Request<wire::PutCertificateProfileRequest>,
    ) -> Result<Response<wire::PutCertificateProfileResponse>, Status> {
        self.certificate_profile_put(
            self.caller(&request, "PutCertificateProfile", |message| {
                message.profile.as_ref().map_or("", |one| one.tenant.as_str())
            })
            .await?,
            request.into_inner(),
        )
        .await
    }

    async fn list_certificate_profiles(
        &self,
        request: Request<wire::ListCertificateProfilesRequest>,
    ) -> Result<Response<wire::ListCertificateProfilesResponse>, Status> {
        let caller = self.caller(&request, "ListCertificateProfiles", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.certificate_profiles_listed(request.into_inner()).await }).await
    }

    async fn remove_certificate_profile(
        &self,
        request: Request<wire::RemoveCertificateProfileRequest>,
    ) -> Result<Response<wire::RemoveCertificateProfileResponse>, Status> {
        self.certificate_profile_removed(
            self.caller(&request, "RemoveCertificateProfile", |message| &message.tenant).await?,
            request.into_inner(),
        )
        .await
    }

    async fn add_revocation(
        &self,
        request: Request<wire::AddRevocationRequest>,
    ) -> Result<Response<wire::AddRevocationResponse>, Status> {
        let caller = self
            .caller(&request, "AddRevocation", |message| {
                message.revocation.as_ref().and_then(|one| one.tenant.as_deref()).unwrap_or_default()
            })
            .await?;
        self.revocation_added(caller, request.into_inner()).await
    }

    async fn list_revocations(
        &self,
        request: Request<wire::ListRevocationsRequest>,
    ) -> Result<Response<wire::ListRevocationsResponse>, Status> {
        let caller =
            self.caller(&request, "ListRevocations", |message| message.tenant.as_deref().unwrap_or_default()).await?;
        self.reads(caller, |this| async move { this.revocations_listed(request.into_inner()).await }).await
    }

    async fn remove_revocation(
        &self,
        request: Request<wire::RemoveRevocationRequest>,
    ) -> Result<Response<wire::RemoveRevocationResponse>, Status> {
        let caller =
            self.caller(&request, "RemoveRevocation", |message| message.tenant.as_deref().unwrap_or_default()).await?;
        self.revocation_removed(caller, request.into_inner()).await
    }

    async fn list_guests(
        &self,
        request: Request<wire::ListGuestsRequest>,
    ) -> Result<Response<wire::ListGuestsResponse>, Status> {
        let caller =
            self.caller(&request, "ListGuests", |message| message.tenant.as_deref().unwrap_or_default()).await?;
        self.reads(caller, |this| async move { this.guests_listed(&request.into_inner()) }).await
    }

    async fn put_policy(
        &self,
        request: Request<wire::PutPolicyRequest>,
    ) -> Result<Response<wire::PutPolicyResponse>, Status> {
        let caller = self.caller(&request, "PutPolicy", |message| &message.tenant).await?;
        self.policy_put(caller, request.into_inner()).await
    }

    async fn get_policy(
        &self,
        request: Request<wire::GetPolicyRequest>,
    ) -> Result<Response<wire::GetPolicyResponse>, Status> {
        self.caller(&request, "GetPolicy", |message| &message.tenant).await?;
        self.policy_shown(request.into_inner()).await
    }

    async fn list_policies(
        &self,
        request: Request<wire::ListPoliciesRequest>,
    ) -> Result<Response<wire::ListPoliciesResponse>, Status> {
        let caller = self.caller(&request, "ListPolicies", |message| &message.tenant).await?;
        self.reads(caller, |this| async move { this.policies_listed(request.into_inner()).await }).await
    }

    async fn remove_policy(
        &self,
        request: Request<wire::RemovePolicyRequest>,
    ) -> Result<Response<wire::RemovePolicyResponse>, Status> {
        let caller = self.caller(&request, "RemovePolicy", |message| &message.tenant).await?;
        self.policy_removed(caller, request.into_inner()).await
    }

    async fn test_policy(
        &self,
        request: Request<wire::TestPolicyRequest>,
    ) -> Result<Response<wire::TestPolicyResponse>, Status> {
        self.caller(&request, "TestPolicy", |message| &message.tenant).await?;
        self.policy_tested(request.into_inner()).await
    }

    async fn put_crl(&self, request: Request<wire::PutCrlRequest>) -> Result<Response<wire::PutCrlResponse>, Status> {
        let caller = self.caller(&request, "PutCrl", |_| "").await?;
        self.crl_put(caller, request.into_inner()).await
    }

    async fn list_crls(
        &self,
        request: Request<wire::ListCrlsRequest>,
    ) -> Result<Response<wire::ListCrlsResponse>, Status> {
        let caller = self.caller(&request, "ListCrls", |_| "").await?;
        self.reads(caller, |this| async move { this.crls_listed().await }).await
    }

    async fn remove_crl(
        &self,
        request: Request<wire::RemoveCrlRequest>,
    ) -> Result<Response<wire::RemoveCrlResponse>, Status> {
        let caller = self.caller(&request, "RemoveCrl", |_| "").await?;
        self.crl_removed(caller, request.into_inner()).await
    }

    async fn add_tenant(
        &self,
        request: Request<wire::AddTenantRequest>,
    ) -> Result<Response<wire::AddTenantResponse>, Status> {
        let caller = self.caller(&request, "AddTenant", |message| &message.tenant).await?;
        self.tenant_added(caller, request.into_inner()).await
    }

    async fn list_tenants(
        &self,
        request: Request<wire::ListTenantsRequest>,
    ) -> Result<Response<wire::ListTenantsResponse>, Status> {
        let caller = self.caller(&request, "ListTenants", |_| "").await?;
        self.reads(caller, |this| async move { this.tenants_listed().await }).await
    }

    async fn add_admin(
        &self,
        request: Request<wire::AddAdminRequest>,
    ) -> Result<Response<wire::AddAdminResponse>, Status> {
        self.admin_added(self.caller(&request, "AddAdmin", |_| "").await?, request.into_inner()).await
    }

    async fn list_admins(
        &self,
        request: Request<wire::ListAdminsRequest>,
    ) -> Result<Response<wire::ListAdminsResponse>, Status> {
        let caller =
            self.caller(&request, "ListAdmins", |message| message.tenant.as_deref().unwrap_or_default()).await?;
        self.reads(caller, |this| async move { this.admins_listed(&request.into_inner()).await }).await
    }

    async fn remove_admin(
        &self,
        request: Request<wire::RemoveAdminRequest>,
    ) -> Result<Response<wire::RemoveAdminResponse>, Status> {
        self.admin_removed(self.caller(&request, "RemoveAdmin", |_| "").await?, request.into_inner()).await
    }

    async fn confirm_restored(
        &self,
        request: Request<wire::ConfirmRestoredRequest>,
    ) -> Result<Response<wire::ConfirmRestoredResponse>, Status> {
        let caller = self.caller(&request, "ConfirmRestored", |_| "").await?;
        let entry = AuditEntry { event: "state.confirm", ..AuditEntry::default() };
        let mut change = self.change(caller, entry).await?;
        let confirmed = change.ledger.confirm_restored(change.now).await.map_err(store_status)?;
        change.done_if(confirmed, "nothing-there", wire::ConfirmRestoredResponse { confirmed }).await
    }

    async fn audit(&self, request: Request<wire::AuditRequest>) -> Result<Response<wire::AuditResponse>, Status> {
        let caller = self.caller(&request, "Audit", |message| message.tenant.as_deref().unwrap_or_default()).await?;
        self.trail_read(caller, request.into_inner()).await
    }

    async fn get_decision_input(
        &self,
        request: Request<wire::GetDecisionInputRequest>,
    ) -> Result<Response<wire::GetDecisionInputResponse>, Status> {
        let caller =
            self.caller(&request, "GetDecisionInput", |message| message.tenant.as_deref().unwrap_or_default()).await?;
        self.decision_input(caller, request.into_inner()).await
    }
}
