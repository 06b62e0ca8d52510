//! Operators and tenants: who may ask here, and for whom.

use coffer_kbs_client::kbs::admin::v1 as wire;
use coffer_verifier::abi::SpkiDigest;
use tonic::{Response, Status};

use super::{
    AdminService,
    changed::{listed, named, say},
    needed, sorted, store_status, tenant,
};
use crate::{
    operators::{Caller, NAMES, is_operator_name, is_same_name},
    roles::{Grant, Role},
    store::{Admin, AuditEntry, Ledger},
    tenant::Tenant,
};

/// Operators, and grants of one.
const LIMIT: usize = 256;

impl AdminService {
    pub(super) async fn tenant_added(
        &self,
        caller: Caller,
        message: wire::AddTenantRequest,
    ) -> Result<Response<wire::AddTenantResponse>, Status> {
        let tenant = tenant(&message.tenant)?;
        let entry = AuditEntry { event: "tenant.add", tenant: Some(tenant.to_string()), ..AuditEntry::default() };
        let mut change = self.change(caller, entry).await?;
        let added = change.ledger.add_tenant(&tenant, change.now).await.map_err(store_status)?;
        change.done_if(added, "there-already", wire::AddTenantResponse { added }).await
    }

    pub(super) async fn tenants_listed(&self) -> Result<Response<wire::ListTenantsResponse>, Status> {
        let mut tenants = self.view().await?.tenants();
        tenants.extend(self.configured_tenants.iter().cloned());
        tenants.sort();
        tenants.dedup();
        let tenants = tenants.iter().map(ToString::to_string).collect();
        Ok(Response::new(wire::ListTenantsResponse { tenants }))
    }

    pub(super) async fn admin_added(
        &self,
        caller: Caller,
        message: wire::AddAdminRequest,
    ) -> Result<Response<wire::AddAdminResponse>, Status> {
        let message = message.admin.ok_or_else(|| Status::invalid_argument("admin: none was given"))?;
        let key = key(&message.spki_sha256)?;
        let name = needed("name", message.name)?;
        if !is_operator_name(&name) {
            return Err(Status::invalid_argument(format!("name: expected {NAMES}")));
        }
        let mut grants = Vec::new();
        for grant in message.grants {
            let grant = self::grant(&grant)?;
            if !grants.contains(&grant) {
                grants.push(grant);
            }
        }
        if grants.is_empty() || grants.len() > LIMIT {
            return Err(Status::invalid_argument(format!("grants: expected 1 to {LIMIT}")));
        }
        if self.operators.configured.contains_key(&key) {
            return Err(Status::failed_precondition(
                "this key stands in the broker's configuration, as an owner; to give it less, take it out of [[admins]] there",
            ));
        }
        let entry = AuditEntry {
            event: "admin.add",
            name: Some(name.clone()),
            key: Some(key.to_string()),
            grants: grants.iter().map(ToString::to_string).collect(),
            ..AuditEntry::default()
        };
        let mut change = self.change(caller, entry).await?;
        for tenant in grants.iter().filter_map(|grant| grant.tenant.as_ref()) {
            if !self.configured_tenants.contains(tenant)
                && !change.ledger.has_tenant(tenant).await.map_err(store_status)?
            {
                return Err(Status::not_found(format!("tenant: there is no tenant {tenant}")));
            }
        }
        let there = change.ledger.admins().await.map_err(store_status)?;
        let taken = self.operators.configured.values().any(|one| is_same_name(one, &name))
            || there.iter().flatten().any(|one| is_same_name(&one.name, &name) && one.key != key);
        if taken {
            return Err(Status::failed_precondition(
                "name: another operator has it, and the trail names them apart by it; to give that one other roles, give its own key (`admin list`) with --key; for another key, choose another name, and remove the old one",
            ));
        }
        if there.len() >= LIMIT && !there.iter().flatten().any(|one| one.key == key) {
            return Err(Status::failed_precondition(format!("there are {LIMIT} operators already")));
        }
        for tenant in change.ledger.tenants_with_rows() {
            let keys = change.ledger.manifest_keys(&tenant).await.map_err(store_status)?;
            if keys.iter().flatten().any(|one| one.key.spki_digest() == key) {
                return Err(Status::failed_precondition("this is a manifest key; one key has one job"));
            }
        }
        let words = |grants: &[Grant]| listed(grants.iter().map(ToString::to_string));
        let before = there.iter().flatten().find(|one| one.key == key);
        say(&mut change.entry.changes, "name", before.map(|before| named(&before.name)), named(&name));
        say(&mut change.entry.changes, "grants", before.map(|before| words(&before.grants)), words(&grants));
        let admin = Admin { key, name, grants, added_unix: change.now };
        let added = change.ledger.put_admin(&admin).await.map_err(store_status)?;
        self.an_owner_is_left(&mut change.ledger).await?;
        let answer = wire::AddAdminResponse { added };
        change.done_and(added, "replaced", answer, self.let_in()).await
    }

    pub(super) async fn admins_listed(
        &self,
        message: &wire::ListAdminsRequest,
    ) -> Result<Response<wire::ListAdminsResponse>, Status> {
        let of = message.tenant.as_deref().map(tenant).transpose()?;
        let (stored, mut damaged) = sorted(self.view().await?.admins().await.map_err(store_status)?);
        let configured = self.operators.configured.iter().map(|(key, name)| wire::Operator {
            name: name.clone(),
            spki_sha256: key.as_bytes().to_vec(),
            grants: vec![wire::Grant { role: Role::Owner.name().to_owned(), tenant: None }],
            configured: true,
        });
        let grant = |grant: &Grant| wire::Grant {
            role: grant.role.name().to_owned(),
            tenant: grant.tenant.as_ref().map(ToString::to_string),
        };
        // Whoever asks for one tenant learns of no other, nor who works for all of them.
        let is_told = |grant: &&Grant| of.is_none() || grant.tenant == of;
        if of.is_some() {
            damaged.clear();
        }
        let configured = configured.filter(|_| of.is_none());
        let stored = stored.into_iter().filter(|one| one.grants.iter().any(|grant| is_told(&grant)));
        let stored = stored.map(|one| wire::Operator {
            grants: one.grants.iter().filter(is_told).map(grant).collect(),
            spki_sha256: one.key.as_bytes().to_vec(),
            name: one.name,
            configured: false,
        });
        Ok(Response::new(wire::ListAdminsResponse { admins: configured.chain(stored).collect(), damaged }))
    }

    pub(super) async fn admin_removed(
        &self,
        caller: Caller,
        message: wire::RemoveAdminRequest,
    ) -> Result<Response<wire::RemoveAdminResponse>, Status> {
        let key = key(&message.spki_sha256)?;
        if self.operators.configured.contains_key(&key) {
            let why = "this key stands in the broker's configuration: take it out there, and start the broker again";
            return Err(Status::failed_precondition(why));
        }
        let entry = AuditEntry { event: "admin.remove", key: Some(key.to_string()), ..AuditEntry::default() };
        let mut change = self.change(caller, entry).await?;
        // One whose row is damaged can be taken away as well.
        change.entry.name = change.ledger.admin(&key).await.ok().flatten().map(|admin| admin.name);
        let existed = change.ledger.remove_admin(&key).await.map_err(store_status)?;
        self.an_owner_is_left(&mut change.ledger).await?;
        let answer = wire::RemoveAdminResponse { existed };
        change.done_and(existed, "nothing-there", answer, self.let_in()).await
    }

    /// Without one nobody could ever add another.
    async fn an_owner_is_left(&self, ledger: &mut Ledger) -> Result<(), Status> {
        let owner = Grant { role: Role::Owner, tenant: None };
        let stored = ledger.admins().await.map_err(store_status)?;
        if !self.operators.configured.is_empty() || stored.iter().flatten().any(|one| one.grants.contains(&owner)) {
            return Ok(());
        }
        Err(Status::failed_precondition("this would leave the broker without an owner"))
    }

    /// The listener learns of what was committed. What somebody may is asked of the ledger, whatever the listener knows.
    fn let_in(&self) -> impl Future<Output = ()> + Send + 'static {
        let (store, operators) = (self.store.clone(), self.operators.clone());
        async move {
            if let Err(error) = operators.let_in(&store).await {
                let (error, hint) = (coffer_rim::chain(&error), error.hint());
                tracing::error!(error = %error, hint, "whom the listener lets in is not known anew");
            }
        }
    }
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn grant(message: &wire::Grant) -> Result<Grant, Status> {
    let role = message.role.parse().map_err(|error| Status::invalid_argument(format!("grants: role: {error}")))?;
    let tenant = message.tenant.as_deref().map(Tenant::parse).transpose();
    let tenant = tenant.map_err(|error| Status::invalid_argument(format!("grants: tenant: {error}")))?;
    Ok(Grant { role, tenant })
}

#[allow(clippy::result_large_err, reason = "tonic's own error type")]
fn key(bytes: &[u8]) -> Result<SpkiDigest, Status> {
    let key = SpkiDigest::try_from(bytes).map_err(|error| Status::invalid_argument(format!("spki_sha256: {error}")))?;
    if key.is_zero() {
        return Err(Status::invalid_argument("spki_sha256: a zero digest never matches"));
    }
    Ok(key)
}
