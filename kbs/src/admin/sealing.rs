//! Sealing contexts: on what terms a tenant's sealing keys and generations are released.

use coffer_kbs_client::{SealingName, kbs::admin::v1 as wire};
use tonic::{Response, Status};
use zeroize::Zeroizing;

use super::{
    AdminService,
    changed::{listed, of_terms, say},
    sorted, store_status, tenant,
    terms::{terms, terms_wire},
};
use crate::{
    operators::Caller,
    store::{AuditEntry, KeyUse, OpenKey, SealingContext},
    tenant::Tenant,
};

/// Contexts of one tenant.
const LIMIT: usize = 1024;

impl AdminService {
    pub(super) async fn sealing_context_put(
        &self,
        caller: Caller,
        message: wire::PutSealingContextRequest,
    ) -> Result<Response<wire::PutSealingContextResponse>, Status> {
        let message = message.context.ok_or_else(|| Status::invalid_argument("context: none was given"))?;
        let tenant = tenant(&message.tenant)?;
        let context = context(message.context)?;
        let mut policies = Vec::new();
        for name in &message.policies {
            let policy = name.parse().map_err(|error| Status::invalid_argument(format!("policies: {error}")))?;
            if !policies.contains(&policy) {
                policies.push(policy);
            }
        }
        if policies.is_empty() {
            return Err(Status::invalid_argument("policies: none was given"));
        }
        let terms = terms(message.terms)?;
        let mut entry = entry("sealing.put", &tenant, &context);
        (entry.policy, entry.allow_simulated) = (Some(terms.policy.clone()), Some(terms.allow_simulated));
        let mut change = self.change(caller, entry).await?;
        self.policy_is_there(&mut change.ledger, &tenant, &terms.policy)?;
        let mut new = SealingContext { context, policies, terms, created_unix: change.now };
        let there = change.ledger.sealing_contexts(&tenant).await.map_err(store_status)?;
        match there.iter().flatten().find(|one| one.context == new.context) {
            Some(before) => new.created_unix = before.created_unix,
            None if there.len() >= LIMIT => {
                return Err(Status::failed_precondition(format!("the tenant has {LIMIT} sealing contexts already")));
            }
            None => {}
        }
        if !change.ledger.has_tenant_key(&tenant, KeyUse::Sealing) {
            let mut key = Zeroizing::new(vec![0; 32]);
            getrandom::fill(&mut key).map_err(|_| Status::internal("the system gives no random bytes"))?;
            let root = OpenKey { public: Vec::new(), key };
            change.ledger.keep_tenant_key(&tenant, KeyUse::Sealing, &root).await.map_err(store_status)?;
        }
        let before = change.ledger.put_sealing_context(&tenant, &new).await.map_err(store_status)?;
        change.entry.changes = of_terms(before.as_ref().map(|before| &before.terms), &new.terms);
        let names = |one: &SealingContext| listed(one.policies.iter().map(ToString::to_string));
        say(&mut change.entry.changes, "policies", before.as_ref().map(names), names(&new));
        let before = before.map(|before| to_wire(&tenant, before));
        change.done_if(before.is_none(), "replaced", wire::PutSealingContextResponse { before }).await
    }

    pub(super) async fn sealing_contexts_listed(
        &self,
        message: wire::ListSealingContextsRequest,
    ) -> Result<Response<wire::ListSealingContextsResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let (rows, damaged) = sorted(self.view().await?.sealing_contexts(&tenant).await.map_err(store_status)?);
        let contexts = rows.into_iter().map(|one| to_wire(&tenant, one)).collect();
        Ok(Response::new(wire::ListSealingContextsResponse { contexts, damaged }))
    }

    pub(super) async fn sealing_context_removed(
        &self,
        caller: Caller,
        message: wire::RemoveSealingContextRequest,
    ) -> Result<Response<wire::RemoveSealingContextResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let context = context(message.context)?;
        let mut change = self.change(caller, entry("sealing.remove", &tenant, &context)).await?;
        let existed = change.ledger.remove_sealing_context(&tenant, &context).await.map_err(store_status)?;
        change.done_if(existed, "nothing-there", wire::RemoveSealingContextResponse { existed }).await
    }
}

fn entry(event: &'static str, tenant: &Tenant, context: &[u8]) -> AuditEntry {
    let name = coffer_rim::foreign(&String::from_utf8_lossy(context)).into_owned();
    AuditEntry { event, tenant: Some(tenant.to_string()), name: Some(name), ..AuditEntry::default() }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn context(bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    if bytes.is_empty() || bytes.len() > SealingName::CONTEXT {
        let most = SealingName::CONTEXT;
        return Err(Status::invalid_argument(format!("context: {} bytes, expected 1 to {most}", bytes.len())));
    }
    Ok(bytes)
}

fn to_wire(tenant: &Tenant, one: SealingContext) -> wire::SealingContext {
    wire::SealingContext {
        tenant: tenant.to_string(),
        policies: one.policies.iter().map(|policy| policy.name().to_owned()).collect(),
        terms: Some(terms_wire(&one.terms)),
        created_unix: one.created_unix,
        context: one.context,
    }
}
