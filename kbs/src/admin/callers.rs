//! Who calls, and whether they may: asked of the ledger at each call, so that an operator who is taken away is gone at once.

use coffer_ratls::{connection, denied};
use tonic::{Code, Request, Status};

use super::{AdminService, store_status};
use crate::{
    operators::Caller,
    roles::{Method, method},
    store::{AuditEntry, Ledger},
    tenant::Tenant,
};

impl AdminService {
    /// Who asks, if they may. `about`: the tenant the request names, empty if none.
    pub(super) async fn caller<R>(
        &self,
        request: &Request<R>,
        name: &'static str,
        about: impl for<'a> Fn(&'a R) -> &'a str,
    ) -> Result<Caller, Status> {
        let key = *connection(request)?.peer_spki();
        let method = method(name).ok_or_else(|| denied(Code::Internal, "internal").0)?;
        // A tenant that is no name is refused by its field, once somebody may ask at all.
        let tenant = Tenant::parse(about(request.get_ref())).ok();
        let mut view = self.view().await?;
        let found = self.operators.find(&mut view, &key).await.map_err(store_status)?;
        let Some((operator, grants)) = found else {
            return Err(denied(Code::PermissionDenied, "key-not-admitted").0);
        };
        if !method.allows(&grants, tenant.as_ref()) {
            drop(view);
            return Err(self.refuse(operator, method, tenant).await);
        }
        if let Some(tenant) = tenant.as_ref().filter(|_| name != "AddTenant")
            && !self.configured_tenants.contains(tenant)
            && !view.has_tenant(tenant).await.map_err(store_status)?
        {
            let hint = format!("`coffer kbs tenant add {tenant}` makes it");
            return Err(Status::not_found(format!("tenant: there is no tenant {tenant}; {hint}")));
        }
        Ok(Caller { name: operator, key, method, tenant })
    }

    /// Looks again in the transaction that changes something.
    pub(super) async fn still_may(&self, ledger: &mut Ledger, caller: &Caller) -> Result<(), Status> {
        let found = self.operators.find(ledger, &caller.key).await.map_err(store_status)?;
        match found {
            Some((_, grants)) if caller.method.allows(&grants, caller.tenant.as_ref()) => Ok(()),
            _ => Err(denied(Code::PermissionDenied, "role-missing").0),
        }
    }

    /// Records that somebody asked for what they may not.
    async fn refuse(&self, operator: String, method: &'static Method, tenant: Option<Tenant>) -> Status {
        let (status, id) = denied(Code::PermissionDenied, "role-missing");
        let entry = AuditEntry {
            event: "admin.call",
            outcome: "refused",
            id,
            peer: operator,
            tenant: tenant.map(|tenant| tenant.to_string()),
            name: Some(method.name.to_owned()),
            reasons: vec![format!("role: {} is for {}", method.name, method.needs())],
            ..AuditEntry::default()
        };
        let log = self.log.clone();
        let recorded = match self.store.write().await {
            Ok(ledger) => ledger.record_decision(entry, self.clock.now(), move |line| log.write(line)).await,
            Err(error) => Err(error),
        };
        recorded.map_or_else(store_status, |()| status)
    }
}
