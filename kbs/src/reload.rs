//! Another configuration, put in place while a server runs: all of it, or none.
//!
//! Never: takes a policy away that something still names, for it would be released no more without anybody having said so.

use std::sync::Arc;

use crate::{
    config::Config,
    guest::{GuestVerifier, Rules},
    policies::ReleasePolicies,
    store::{Ledger, Store, StoreError},
    tenants::{NoTenant, missing},
};

/// Why a configuration was not put in place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// It lacks policies that are named.
    #[error("{}", .0.join("; "))]
    Named(Vec<String>),
    /// It names a tenant that is not there.
    #[error(transparent)]
    Tenant(#[from] NoTenant),
    /// The ledger.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ReloadError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Named(_) => {
                "give them another policy first (`coffer kbs secret update PATH --policy NAME`), or keep this one"
            }
            Self::Tenant(error) => error.hint(),
            Self::Store(error) => error.hint(),
        }
    }
}

/// Puts another configuration in place while a server runs.
pub struct Reload {
    pub(crate) store: Arc<Store>,
    pub(crate) verifier: Arc<GuestVerifier>,
    pub(crate) policies: Arc<ReleasePolicies>,
    /// [`Config::of_the_start`] of the one that it started with.
    pub(crate) started: Vec<(&'static str, String)>,
}

/// How often what names a policy is read anew.
const ATTEMPTS: usize = 8;
/// Users that are named of each policy.
const NAMED: usize = 4;

impl Reload {
    /// Certificates, revocation lists, simulated roots, floors and policies, all of them at once. Gives the keys of what else
    /// differs from the start: it counts at the next one.
    ///
    /// # Errors
    /// [`ReloadError`]; then everything is as it was.
    pub async fn apply(&self, config: Config) -> Result<Vec<&'static str>, ReloadError> {
        let waiting = self.waiting(&config);
        if let Some(missing) = missing(&mut self.store.read().await?, &config) {
            return Err(missing.into());
        }
        let goes = |name: &str| self.policies.has(name) && !config.policies.has(name);
        if !self.policies.names().iter().any(|name| goes(name)) {
            self.put(config);
            return Ok(waiting);
        }
        for _ in 0..ATTEMPTS {
            let mut view = self.store.read().await?;
            let named = named_and_gone(&mut view, goes).await?;
            if !named.is_empty() {
                return Err(ReloadError::Named(named));
            }
            let (tenants, seen) = (view.tenants_with_rows(), view.into_seen());
            // Held until the new ones are in place: whether a policy is there is asked by whoever is about to name it, in a
            // transaction.
            let ledger = self.store.write_on_what_lasts().await?;
            if ledger.is_as(&seen) && ledger.tenants_with_rows() == tenants {
                self.put(config);
                return Ok(waiting);
            }
        }
        Err(StoreError::Contended { attempts: ATTEMPTS }.into())
    }

    fn waiting(&self, config: &Config) -> Vec<&'static str> {
        let differs = |(was, is): (&(_, String), (&'static str, String))| (was.1 != is.1).then_some(is.0);
        self.started.iter().zip(config.of_the_start()).filter_map(differs).collect()
    }

    fn put(&self, config: Config) {
        let Config { simulated_anchors: anchors, endorsements, floors, chipless, policies, .. } = config;
        self.verifier.replace(Rules { anchors, endorsements, floors, chipless });
        self.policies.replace(policies);
    }
}

/// Policies that something names and that nobody has: no tenant keeps them, and `gone` is true of them. In words, with who names them.
///
/// # Errors
/// As the store.
pub(crate) async fn named_and_gone(view: &mut Ledger, gone: impl Fn(&str) -> bool) -> Result<Vec<String>, StoreError> {
    let mut all = Vec::new();
    for tenant in view.tenants_with_rows() {
        for (name, users) in view.policies_named(&tenant).await? {
            if !gone(&name) || view.has_policy(&tenant, &name) {
                continue;
            }
            let more = users.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let users = users[..users.len().min(NAMED)].join(", ");
            all.push(format!("policy {name} is not there, and is named by {users}{more} of tenant {tenant}"));
        }
    }
    Ok(all)
}
