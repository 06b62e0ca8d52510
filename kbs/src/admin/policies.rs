//! Policies that a tenant keeps: set only if they parse, removed only if nothing names them.

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_policies::RELEASE;
use sha2::{Digest as _, Sha256};
use tonic::{Response, Status};

use super::{AdminService, change::Change, changed::say, sorted, store_status, tenant};
use crate::{
    operators::Caller,
    policies::DEFAULT,
    store::{AuditEntry, StoreError, StoredPolicy},
    tenant::Tenant,
};

/// Policies of one tenant.
const LIMIT: usize = 256;
/// How often what names a policy is read anew.
const ATTEMPTS: usize = 8;
/// Users that are named where a policy cannot be removed.
const NAMED: usize = 8;

impl AdminService {
    pub(super) async fn policy_put(
        &self,
        caller: Caller,
        message: wire::PutPolicyRequest,
    ) -> Result<Response<wire::PutPolicyResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let name = policy_name(message.name)?;
        if self.policies.has(&name) {
            let message = format!("name: {name} is a policy of the broker's configuration; choose another");
            return Err(Status::invalid_argument(message));
        }
        let by = caller.name.clone();
        // For people: asked before the change, so that nobody waits for it.
        let used = self.view().await?.policy_users(&tenant, &name).await.map_err(store_status)?;
        self.policy_work.parse(&tenant, &name, &message.text).await?;
        let mut change = self.change(caller, entry("policy.put", &tenant, &name)).await?;
        let policy = StoredPolicy { name, text: message.text, by, put_unix: change.now };
        let there = change.ledger.policy_names(&tenant);
        if there.len() >= LIMIT && !there.contains(&policy.name) {
            return Err(Status::failed_precondition(format!("the tenant has {LIMIT} policies already")));
        }
        let info = info(&policy);
        change.entry.key = Some(hex::encode(&info.sha256));
        let before = match change.ledger.policy(&tenant, &policy.name).await {
            Err(StoreError::Tampered { .. }) => None,
            other => other.map_err(store_status)?,
        };
        let digest = |policy: &StoredPolicy| format!("sha256 {}", hex::encode(Sha256::digest(&policy.text)));
        say(&mut change.entry.changes, "text", before.as_ref().map(digest), digest(&policy));
        let added = change.ledger.put_policy(&tenant, &policy).await.map_err(store_status)?;
        let answer = wire::PutPolicyResponse { added, policy: Some(info), used };
        change.done_if(added, "replaced", answer).await
    }

    pub(super) async fn policy_shown(
        &self,
        message: wire::GetPolicyRequest,
    ) -> Result<Response<wire::GetPolicyResponse>, Status> {
        let (tenant, name) = (tenant(&message.tenant)?, policy_name(message.name)?);
        let found = self.view().await?.policy(&tenant, &name).await.map_err(store_status)?;
        let shipped = || {
            let (by, put_unix, text) = (String::new(), 0, RELEASE.text.to_owned());
            (name == DEFAULT).then_some(StoredPolicy { name: name.clone(), text, by, put_unix })
        };
        let found = found.or_else(shipped);
        let policy = found.as_ref().map(info);
        Ok(Response::new(wire::GetPolicyResponse { policy, text: found.map(|one| one.text).unwrap_or_default() }))
    }

    pub(super) async fn policies_listed(
        &self,
        message: wire::ListPoliciesRequest,
    ) -> Result<Response<wire::ListPoliciesResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let (all, damaged) = sorted(self.view().await?.policies(&tenant).await.map_err(store_status)?);
        let policies = all.iter().map(info).collect();
        Ok(Response::new(wire::ListPoliciesResponse { policies, configured: self.policies.names(), damaged }))
    }

    pub(super) async fn policy_removed(
        &self,
        caller: Caller,
        message: wire::RemovePolicyRequest,
    ) -> Result<Response<wire::RemovePolicyResponse>, Status> {
        let (tenant, name) = (tenant(&message.tenant)?, policy_name(message.name)?);
        let (mut change, users) = self.change_beside_users(caller, &tenant, &name).await?;
        if change.ledger.has_policy(&tenant, &name) && !users.is_empty() {
            let more = users.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let users = users[..users.len().min(NAMED)].join(", ");
            let message = format!("policy {name} is in use by {users}{more}; give them another policy first");
            return Err(Status::failed_precondition(message));
        }
        let existed = change.ledger.remove_policy(&tenant, &name).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::RemovePolicyResponse { existed }).await
    }

    /// A removal with who names the policy. All versions of all secrets are read for that, so nobody waits meanwhile; if anything
    /// of it has changed since, it is read again.
    async fn change_beside_users(
        &self,
        caller: Caller,
        tenant: &Tenant,
        name: &str,
    ) -> Result<(Change, Vec<String>), Status> {
        for _ in 0..ATTEMPTS {
            let mut view = self.view().await?;
            let users = view.policy_users(tenant, name).await.map_err(store_status)?;
            let seen = view.into_seen();
            let change = self.change(caller.clone(), entry("policy.remove", tenant, name)).await?;
            if change.ledger.is_as(&seen) {
                return Ok((change, users));
            }
        }
        Err(store_status(StoreError::Contended { attempts: ATTEMPTS }))
    }
}

fn entry(event: &'static str, tenant: &Tenant, name: &str) -> AuditEntry {
    AuditEntry { event, tenant: Some(tenant.to_string()), name: Some(name.to_owned()), ..AuditEntry::default() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
pub(super) fn policy_name(text: String) -> Result<String, Status> {
    match text.parse::<coffer_spec::Name>() {
        Ok(_) => Ok(text),
        Err(_) => Err(Status::invalid_argument(format!("name: expected {}", coffer_spec::NAME_RULE))),
    }
}

fn info(policy: &StoredPolicy) -> wire::PolicyInfo {
    wire::PolicyInfo {
        name: policy.name.clone(),
        sha256: Sha256::digest(&policy.text).to_vec(),
        length: policy.text.len() as u64,
        by: policy.by.clone(),
        put_unix: policy.put_unix,
    }
}
