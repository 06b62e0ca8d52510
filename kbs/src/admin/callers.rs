//! Who calls, and whether they may: asked of the ledger at each call, so that an operator who is taken away is gone at once.

use std::time::Instant;

use coffer_kbs_client::{ROLES_ENOUGH, ROLES_HELD};
use coffer_ratls::{connection, denied};
use tonic::{Code, Request, Status};

use super::{AdminService, change::Change, store_status};
use crate::{
    admin_socket::LocalPeer,
    operators::{Asking, Caller},
    refusals::Whom,
    roles::{Grant, Method, method},
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
            return Err(denied(Code::PermissionDenied, NOT_ADMITTED).0);
        };
        if !method.allows(&grants, tenant.as_ref()) {
            let is_there = match &tenant {
                Some(tenant) => {
                    self.configured_tenants.contains(tenant) || view.has_tenant(tenant).await.unwrap_or(true)
                }
                None => false,
            };
            drop(view);
            // One that is not there is a word that anybody can make up.
            let caller = Caller { name: operator, asking, grants, method, tenant };
            return Err(self.refuse_as(caller, is_there).await);
        }
        if let Some(tenant) = tenant.as_ref().filter(|_| name != "AddTenant")
            && !self.configured_tenants.contains(tenant)
            && !view.has_tenant(tenant).await.map_err(store_status)?
        {
            let hint = format!("`coffer kbs tenant add {tenant}` makes it");
            return Err(Status::not_found(format!("tenant: there is no tenant {tenant}; {hint}")));
        }
        Ok(Caller { name: operator, asking, grants, method, tenant })
    }

    /// What reads much, when there is a place. Behind [`Self::caller`]: whoever may not ask waits in none.
    pub(super) async fn reads<T: Send + 'static, F: Future<Output = Result<T, Status>> + Send + 'static>(
        &self,
        caller: Caller,
        read: impl FnOnce(Self) -> F,
    ) -> Result<T, Status> {
        self.aside.see_through(caller.tenant, read(self.clone())).await.map_err(store_status)?
    }

    /// Looks again in the transaction that changes something.
    pub(super) async fn still_may(&self, ledger: &mut Ledger, caller: &Caller) -> Result<(), Status> {
        match self.operators.find(ledger, &caller.asking).await.map_err(store_status)? {
            Some((_, grants)) if caller.method.allows(&grants, caller.tenant.as_ref()) => Ok(()),
            Some((_, grants)) => Err(missing(denied(Code::PermissionDenied, ROLE_MISSING).0, caller, &grants)),
            // Taken away meanwhile.
            None => Err(denied(Code::PermissionDenied, NOT_ADMITTED).0),
        }
    }

    /// Goes on with a change that turned out to widen something, where whoever asked for it may; else all of it is dropped.
    pub(super) async fn widen(
        &self,
        mut change: Change,
        caller: Caller,
        widening: &'static Method,
    ) -> Result<Change, Status> {
        let caller = Caller { method: widening, ..caller };
        let Err(status) = self.still_may(&mut change.ledger, &caller).await else { return Ok(change) };
        drop(change);
        Err(if status.message() == ROLE_MISSING { self.refuse_as(caller, true).await } else { status })
    }

    /// Says no; the first of a cause stands in the trail before that. An operator that goes on and on gets another word.
    async fn refuse_as(&self, caller: Caller, tenant_is_there: bool) -> Status {
        let may_ask = self.refused.take(caller.asking, Instant::now());
        let (status, id) = if may_ask {
            denied(Code::PermissionDenied, ROLE_MISSING)
        } else {
            denied(Code::ResourceExhausted, "too-many-requests")
        };
        let status = missing(status, &caller, &caller.grants);
        let Caller { name, method, tenant, .. } = caller;
        let entry = AuditEntry {
            event: "admin.call",
            outcome: "refused",
            id,
            peer: name.clone(),
            tenant: tenant.filter(|_| tenant_is_there).map(|tenant| tenant.to_string()),
            name: Some(method.name.to_owned()),
            reasons: vec![format!("role: {} is for {}", method.name, method.needs())],
            ..AuditEntry::default()
        };
        self.refusals.clone().add_and_write(Whom::Operator(name), entry).await;
        status
    }
}

/// A refusal that says which grants would be enough, and which there are: an operator may know both.
fn missing(mut status: Status, caller: &Caller, grants: &[Grant]) -> Status {
    let words = |grants: &[Grant]| grants.iter().take(SAID).map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let enough = caller.method.enough(caller.tenant.as_ref());
    for (key, words) in [(ROLES_ENOUGH, words(&enough)), (ROLES_HELD, words(grants))] {
        if let Ok(value) = words.parse() {
            status.metadata_mut().insert(key, value);
        }
    }
    status
}

/// Grants that are said.
const SAID: usize = 16;
const ROLE_MISSING: &str = "role-missing";
const NOT_ADMITTED: &str = "key-not-admitted";

/// What the connection of a request shows of whoever asks.
#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn asking<R>(request: &Request<R>) -> Result<Asking, Status> {
    match request.extensions().get::<LocalPeer>() {
        Some(peer) => Ok(Asking::Local(*peer)),
        None => Ok(Asking::Key(*connection(request)?.peer_spki())),
    }
}
