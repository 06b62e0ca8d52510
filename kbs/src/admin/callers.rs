//! Who calls, and whether they may: asked of the ledger at each call, so that an operator who is taken away is gone at once.

use std::time::Instant;

use coffer_ratls::{connection, denied};
use tonic::{Code, Request, Status};

use super::{AdminService, store_status};
use crate::{
    admin_socket::LocalPeer,
    operators::{Asking, Caller},
    refusals::Whom,
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
        let asking = asking(request)?;
        let method = method(name).ok_or_else(|| denied(Code::Internal, "internal").0)?;
        // A tenant that is no name is refused by its field, once somebody may ask at all.
        let tenant = Tenant::parse(about(request.get_ref())).ok();
        let mut view = self.view().await?;
        let found = self.operators.find(&mut view, &asking).await.map_err(store_status)?;
        let Some((operator, grants)) = found else {
            return Err(denied(Code::PermissionDenied, "key-not-admitted").0);
        };
        if !method.allows(&grants, tenant.as_ref()) {
            return Err(self.refuse(operator, asking, method, tenant));
        }
        if let Some(tenant) = tenant.as_ref().filter(|_| name != "AddTenant")
            && !self.configured_tenants.contains(tenant)
            && !view.has_tenant(tenant).await.map_err(store_status)?
        {
            let hint = format!("`coffer kbs tenant add {tenant}` makes it");
            return Err(Status::not_found(format!("tenant: there is no tenant {tenant}; {hint}")));
        }
        Ok(Caller { name: operator, asking, method, tenant })
    }

    /// Looks again in the transaction that changes something.
    pub(super) async fn still_may(&self, ledger: &mut Ledger, caller: &Caller) -> Result<(), Status> {
        let found = self.operators.find(ledger, &caller.asking).await.map_err(store_status)?;
        match found {
            Some((_, grants)) if caller.method.allows(&grants, caller.tenant.as_ref()) => Ok(()),
            _ => Err(denied(Code::PermissionDenied, "role-missing").0),
        }
    }

    /// Refuses a call for what it turned out to be: what was changed for it must be dropped before.
    pub(super) fn refuse_as(&self, caller: Caller) -> Status {
        self.refuse(caller.name, caller.asking, caller.method, caller.tenant)
    }

    /// Says no, and sees to it that it stands in the trail. An operator that goes on and on gets another word.
    fn refuse(&self, operator: String, asking: Asking, method: &'static Method, tenant: Option<Tenant>) -> Status {
        let may_ask = self.refused.take(asking, Instant::now());
        let (status, id) = if may_ask {
            denied(Code::PermissionDenied, "role-missing")
        } else {
            denied(Code::ResourceExhausted, "too-many-requests")
        };
        let entry = AuditEntry {
            event: "admin.call",
            outcome: "refused",
            id,
            peer: operator.clone(),
            tenant: tenant.map(|tenant| tenant.to_string()),
            name: Some(method.name.to_owned()),
            reasons: vec![format!("role: {} is for {}", method.name, method.needs())],
            ..AuditEntry::default()
        };
        self.refusals.add(Whom::Operator(operator), entry);
        status
    }
}

/// What the connection of a request shows of whoever asks.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn asking<R>(request: &Request<R>) -> Result<Asking, Status> {
    match request.extensions().get::<LocalPeer>() {
        Some(peer) => Ok(Asking::Local(*peer)),
        None => Ok(Asking::Key(*connection(request)?.peer_spki())),
    }
}
