//! Secrets: values in, never out.

use coffer_kbs_client::{ResourcePath, kbs::admin::v1 as wire};
use coffer_ratls::denied;
use coffer_verifier::Expiry;
use tonic::{Code, Response, Status};
use zeroize::Zeroizing;

use super::{
    AdminService, VALUE_LIMIT,
    changed::of_secret,
    name, non_zero, seconds, sorted, store_status, tenant,
    terms::{labels, labels_wire, rules, terms_wire},
};
use crate::{
    operators::Caller,
    roles::{WIDEN, WIDEN_ANEW},
    store::{AuditEntry, Described, NewSecret, Put, Secret, SecretInfo, SecretUpdate, StoreError, Traces},
    tenant::Tenant,
};

impl AdminService {
    pub(super) async fn secret_put(
        &self,
        caller: Caller,
        message: wire::PutSecretRequest,
    ) -> Result<Response<wire::PutSecretResponse>, Status> {
        let value = Zeroizing::new(message.value);
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        if value.is_empty() {
            return Err(Status::invalid_argument("value is empty"));
        }
        if value.len() > VALUE_LIMIT {
            let (status, id) = denied(Code::InvalidArgument, "value-too-large");
            tracing::info!(
                %id,
                peer = %caller.name,
                length = value.len(),
                "a value was not taken: the limit is {VALUE_LIMIT} bytes"
            );
            return Err(status);
        }
        let policy = name("policy", message.policy)?;
        let new = NewSecret {
            tenant: &tenant,
            path: &path,
            value: &value,
            allow_simulated: message.allow_simulated,
            policy: policy.as_deref(),
            rules: rules(message.rules)?,
            labels: labels(message.labels)?,
            expires: self.new_expiry(message.expires_unix, message.never_expires)?,
            expected_version: message.expected_version,
        };
        let mut change = self.change(caller.clone(), entry("secret.put", &tenant, &path, None)).await?;
        if let Some(policy) = &policy {
            self.policy_is_there(&mut change.ledger, &tenant, policy)?;
        }
        let put = change.ledger.put_secret(new, change.now).await.map_err(store_status)?;
        // Found out within the transaction, on what is there; without leave all of it is undone.
        if put.widens {
            change = self.widen(change, caller, &WIDEN_ANEW).await?;
        }
        let Put { now, before, .. } = put;
        change.entry.changes = of_secret(before.as_ref(), &now);
        change.entry.version = Some(now.stated.version);
        change.entry.policy = Some(now.stated.terms.policy.clone());
        change.entry.allow_simulated = Some(now.stated.terms.allow_simulated);
        let answer = wire::PutSecretResponse { now: Some(described(&now)), before: before.as_ref().map(described) };
        change.done(answer).await
    }

    pub(super) async fn secrets_listed(
        &self,
        message: wire::ListSecretsRequest,
    ) -> Result<Response<wire::ListSecretsResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let mut view = self.view().await?;
        let secrets = if message.deleted { view.all_secrets(&tenant).await } else { view.secrets(&tenant).await };
        let (secrets, damaged) = sorted(secrets.map_err(store_status)?);
        Ok(Response::new(wire::ListSecretsResponse { secrets: secrets.iter().map(info).collect(), damaged }))
    }

    pub(super) async fn secret_described(
        &self,
        message: wire::GetSecretMetaRequest,
    ) -> Result<Response<wire::GetSecretMetaResponse>, Status> {
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        let mut view = self.view().await?;
        let (versions, mut damaged) = sorted(view.secret_versions(&tenant, &path).await.map_err(store_status)?);
        let found = match view.secret_info(&tenant, &path).await {
            Err(error @ StoreError::Tampered { .. }) => {
                let what = sorted::<()>(vec![Err(error)]).1;
                // The current version is named already.
                damaged.extend(what.into_iter().filter(|one| !damaged.contains(one)).collect::<Vec<_>>());
                None
            }
            other => other.map_err(store_status)?,
        };
        let versions = versions.iter().map(version).collect();
        Ok(Response::new(wire::GetSecretMetaResponse { secret: found.as_ref().map(info), versions, damaged }))
    }

    pub(super) async fn secret_deleted(
        &self,
        caller: Caller,
        message: wire::DeleteSecretRequest,
    ) -> Result<Response<wire::DeleteSecretResponse>, Status> {
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        let version = non_zero("version", message.version)?;
        let mut change = self.change(caller, entry("secret.delete", &tenant, &path, version)).await?;
        let existed = change.ledger.delete_secret(&tenant, &path, version, change.now).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::DeleteSecretResponse { existed }).await
    }

    pub(super) async fn secret_undeleted(
        &self,
        caller: Caller,
        message: wire::UndeleteSecretRequest,
    ) -> Result<Response<wire::UndeleteSecretResponse>, Status> {
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        let version = non_zero("version", message.version)?;
        let mut change = self.change(caller, entry("secret.undelete", &tenant, &path, version)).await?;
        let existed = change.ledger.undelete_secret(&tenant, &path, version).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::UndeleteSecretResponse { existed }).await
    }

    pub(super) async fn secret_destroyed(
        &self,
        caller: Caller,
        message: wire::DestroySecretRequest,
    ) -> Result<Response<wire::DestroySecretResponse>, Status> {
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        let version = non_zero("version", Some(message.version))?.unwrap_or_default();
        let mut change = self.change(caller, entry("secret.destroy", &tenant, &path, Some(version))).await?;
        let existed = change.ledger.destroy_secret(&tenant, &path, version).await.map_err(store_status)?;
        let store = self.store.clone();
        // As a whole, also where whoever asked has gone away; and again where it was destroyed before.
        let task = tokio::spawn(async move {
            let answer = change.done_if(existed, "nothing-there", wire::DestroySecretResponse { existed }).await?;
            store.leave_no_traces(Traces::Log).await.map_err(store_status)?;
            Ok(answer)
        });
        task.await.map_err(|error| store_status(StoreError::interrupted(error)))?
    }

    pub(super) async fn secret_updated(
        &self,
        caller: Caller,
        message: wire::UpdateSecretRequest,
    ) -> Result<Response<wire::UpdateSecretResponse>, Status> {
        let (tenant, path) = (tenant(&message.tenant)?, path(&message.path)?);
        let version = non_zero("version", message.version)?;
        let policy = name("policy", message.policy)?;
        let expires = self.new_expiry(message.expires_unix, message.never_expires)?;
        let update = SecretUpdate {
            version,
            minimum_version: message.minimum_version,
            labels: labels(message.labels)?,
            allow_simulated: message.allow_simulated,
            policy: policy.as_deref(),
            rules: rules(message.rules)?,
            expires,
        };
        let mut change = self.change(caller.clone(), entry("secret.update", &tenant, &path, version)).await?;
        if let Some(policy) = &policy {
            self.policy_is_there(&mut change.ledger, &tenant, policy)?;
        }
        let updated = change.ledger.update_secret(&tenant, &path, update).await.map_err(store_status)?;
        let existed = updated.is_some();
        // As with a new value.
        if updated.as_ref().is_some_and(|updated| updated.widens) {
            change = self.widen(change, caller, &WIDEN).await?;
        }
        let (before, now) = updated.map_or((None, None), |updated| (updated.before, updated.now));
        change.entry.changes = match (&before, &now) {
            (Some(before), Some(now)) => of_secret(Some(before), now),
            // Damaged: what was said is all that is known.
            _ => message
                .minimum_version
                .filter(|_| existed)
                .map(|least| format!("minimum_version: {least}"))
                .into_iter()
                .collect(),
        };
        if let Some(now) = &now {
            change.entry.version = Some(now.stated.version);
            change.entry.policy = Some(now.stated.terms.policy.clone());
            change.entry.allow_simulated = Some(now.stated.terms.allow_simulated);
        }
        let (before, now) = (before.as_ref().map(described), now.as_ref().map(described));
        change.done_if(existed, "nothing-there", wire::UpdateSecretResponse { existed, now, before }).await
    }
}

impl AdminService {
    /// An expiry that is said anew, if one is.
    #[allow(clippy::result_large_err, reason = "tonic's own error type")]
    fn new_expiry(&self, at: Option<i64>, never: bool) -> Result<Option<Expiry>, Status> {
        match (at, never) {
            (Some(_), true) => {
                Err(Status::invalid_argument("an expiry, and that there is none, contradict each other"))
            }
            (None, true) => Ok(Some(Expiry::Never)),
            (Some(_), false) => self.expiry(at).map(Some),
            (None, false) => Ok(None),
        }
    }
}

fn entry(event: &'static str, tenant: &Tenant, path: &ResourcePath, version: Option<u64>) -> AuditEntry {
    AuditEntry {
        event,
        tenant: Some(tenant.to_string()),
        path: Some(path.to_string()),
        version,
        ..AuditEntry::default()
    }
}

fn described(described: &Described) -> wire::SecretStated {
    let Described { stated, expires, minimum_version } = described;
    wire::SecretStated {
        version: stated.version,
        terms: Some(terms_wire(&stated.terms)),
        labels: Some(labels_wire(&stated.labels)),
        expires_unix: seconds(*expires),
        minimum_version: *minimum_version,
    }
}

fn info(info: &SecretInfo) -> wire::SecretInfo {
    wire::SecretInfo {
        path: info.path.clone(),
        current: Some(version(&info.secret)),
        labels: Some(labels_wire(&info.labels)),
        minimum_version: info.minimum_version,
        deleted_unix: info.deleted_unix,
    }
}

fn version(secret: &Secret) -> wire::SecretVersion {
    wire::SecretVersion {
        version: secret.version,
        terms: Some(terms_wire(&secret.terms)),
        created_unix: secret.created_unix,
        expires_unix: seconds(secret.expires),
        deleted_unix: secret.deleted_unix,
        destroyed: secret.is_destroyed(),
        length: secret.length(),
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn path(text: &str) -> Result<ResourcePath, Status> {
    text.parse().map_err(|error: coffer_kbs_client::PathError| Status::invalid_argument(format!("path: {error}")))
}
