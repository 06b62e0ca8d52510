//! Which tenants there are: those that were created, those that the configuration lists, and `default`.
//!
//! Never: makes one because something names it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    audit_log::AuditLog,
    config::Config,
    store::{AuditEntry, BROKER, Ledger, Store, StoreError},
    tenant::Tenant,
};

/// The configuration or a flag names a tenant that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{named_by}: there is no tenant {tenant}; there are: {there}")]
pub struct NoTenant {
    /// Which one.
    pub tenant: Tenant,
    /// Where it is named.
    pub named_by: &'static str,
    /// Those that are there.
    pub there: String,
}

impl NoTenant {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        "say one that is there; `coffer kbs tenant add NAME` makes another, or [tenants.NAME] in the configuration"
    }
}

/// Whether a tenant is there, for those who may ask as often as they like: the ledger is read once for each of its changes.
pub struct Known {
    store: Arc<Store>,
    configured: Arc<BTreeSet<Tenant>>,
    /// Those that were created, at the change that was seen.
    created: Mutex<Option<(u64, BTreeSet<Tenant>)>>,
}

impl Known {
    /// Of a broker that serves.
    pub fn new(store: Arc<Store>, configured: Arc<BTreeSet<Tenant>>) -> Self {
        Self { store, configured, created: Mutex::default() }
    }

    /// True if it is.
    ///
    /// # Errors
    /// As the store.
    pub async fn has(&self, tenant: &Tenant) -> Result<bool, StoreError> {
        if self.configured.contains(tenant) {
            return Ok(true);
        }
        let is_there = {
            let created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
            let of_now = created.as_ref().filter(|(changes, _)| *changes == self.store.changes());
            of_now.map(|(_, all)| all.contains(tenant))
        };
        if let Some(is_there) = is_there {
            return Ok(is_there);
        }
        let mut view = self.store.read().await?;
        let all: BTreeSet<_> = view.tenants().into_iter().collect();
        let is_there = all.contains(tenant);
        *self.created.lock().unwrap_or_else(PoisonError::into_inner) = Some((view.changes(), all));
        Ok(is_there)
    }
}

/// Reason against a guest: the name is its own word, and stands beside it.
pub(crate) const NO_TENANT: &str = "tenant: there is none of the name that the guest's spec gives";

/// Every tenant there is, also at a broker that has not served yet.
pub(crate) fn there(view: &mut Ledger, configured: &BTreeSet<Tenant>) -> BTreeSet<Tenant> {
    let mut all = configured.clone();
    all.extend(Tenant::parse(ALWAYS));
    let created = view.tenants();
    // A database from before tenants were created: those that somebody used are taken over when it is served.
    all.extend(if created.is_empty() { view.tenants_with_rows() } else { created.into_iter().collect() });
    all
}

/// The first tenant that a configuration names and that is not there.
pub(crate) fn missing(view: &mut Ledger, config: &Config) -> Option<NoTenant> {
    let there = there(view, &config.tenants);
    let (tenant, named_by) = config.named_tenants.iter().find(|(tenant, _)| !there.contains(*tenant))?;
    let there: Vec<_> = there.iter().map(Tenant::as_str).collect();
    Some(NoTenant { tenant: tenant.clone(), named_by, there: there.join(", ") })
}

/// A database from before tenants were created has those that somebody used, and every broker has `default`.
pub(crate) async fn adopt(store: &Store, log: &AuditLog, now: i64) -> Result<(), StoreError> {
    if !store.read().await?.tenants().is_empty() {
        return Ok(());
    }
    let mut ledger = store.write().await?;
    let mut tenants = ledger.tenants_with_rows();
    tenants.extend(Tenant::parse(ALWAYS));
    for tenant in &tenants {
        ledger.add_tenant(tenant, now).await?;
    }
    if tenants.len() == 1 {
        // A new broker, with the one tenant that every broker has.
        return ledger.commit().await;
    }
    let entry = AuditEntry {
        event: "tenant.adopt",
        outcome: "done",
        peer: BROKER.into(),
        reasons: tenants.iter().map(|tenant| format!("tenant: {tenant} is there")).collect(),
        ..AuditEntry::default()
    };
    let log = log.clone();
    ledger.record_decision(entry, now, move |line| log.write(line)).await
}

const ALWAYS: &str = "default";
