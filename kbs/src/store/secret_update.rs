//! What is said about a secret, said anew: terms of a version without a new value, labels, the least version.

use coffer_kbs_client::ResourcePath;
use coffer_verifier::Expiry;

use super::{
    Labels, StoreError,
    ledger::Ledger,
    secrets::{Described, Head, Secret, context, head_key, version_key},
};
use crate::{
    tenant::Tenant,
    terms::{Rules, Terms},
};

/// What is to be said anew. What is left out stays as it is.
#[derive(Clone, Debug, Default)]
pub struct SecretUpdate<'a> {
    /// Whose terms; nothing: the current version's.
    pub version: Option<u64>,
    /// Versions below are not released.
    pub minimum_version: Option<u64>,
    /// Labels of the secret.
    pub labels: Option<Labels>,
    /// May simulated evidence have the version.
    pub allow_simulated: Option<bool>,
    /// Its release policy by name.
    pub policy: Option<&'a str>,
    /// Its typed rules.
    pub rules: Option<Rules>,
    /// From when on it is not released.
    pub expires: Option<Expiry>,
}

impl SecretUpdate<'_> {
    /// True if it is about one version.
    fn changes_terms(&self) -> bool {
        self.version.is_some()
            || self.allow_simulated.is_some()
            || self.policy.is_some()
            || self.rules.is_some()
            || self.expires.is_some()
    }
}

/// What an update found and left; nothing of a version whose row is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// As it was.
    pub before: Option<Described>,
    /// As it is.
    pub now: Option<Described>,
    /// It may be released to others, or for longer, than before; also of a version whose row is damaged.
    pub widens: bool,
}

impl Ledger {
    /// Says anew what is said about a secret, and on what terms one of its versions is released. Nothing if there is no such secret or
    /// version.
    ///
    /// # Errors
    /// [`StoreError::Minimum`] for one above the current version, else as the store.
    pub async fn update_secret(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
        update: SecretUpdate<'_>,
    ) -> Result<Option<Updated>, StoreError> {
        let Some(head) = self.record::<Head>(&head_key(tenant, path)).await? else { return Ok(None) };
        if let Some(least) = update.minimum_version.filter(|least| *least > head.version) {
            return Err(StoreError::Minimum { least, current: head.version });
        }
        let version = update.version.unwrap_or(head.version);
        let key = version_key(tenant, path, version);
        let secret = match self.record::<Secret>(&key).await {
            Ok(Some(secret)) if !(update.changes_terms() && secret.is_destroyed()) => Some(secret),
            Ok(_) => return Ok(None),
            // What is said beside the versions can be said of a damaged one, too.
            Err(StoreError::Tampered { .. }) if !update.changes_terms() => None,
            Err(error) => return Err(error),
        };
        let before = secret.as_ref().map(|secret| Described::of(secret, &head));
        let lower = update.minimum_version.is_some_and(|least| least < head.minimum_version);
        let head = Head {
            minimum_version: update.minimum_version.unwrap_or(head.minimum_version),
            labels: update.labels.clone().unwrap_or(head.labels),
            ..head
        };
        self.put_record(head_key(tenant, path), &head).await?;
        let now = match secret {
            Some(secret) if update.changes_terms() => {
                let changed = self.on_terms(tenant, path, &secret, update)?;
                self.put_record(key, &changed).await?;
                Some(Described::of(&changed, &head))
            }
            other => other.map(|secret| Described::of(&secret, &head)),
        };
        let wider = before.as_ref().zip(now.as_ref()).is_some_and(|(before, now)| now.widens(before));
        Ok(Some(Updated { before, now, widens: lower || wider }))
    }

    /// A version on other terms. What the value is bound to is bound anew.
    fn on_terms(
        &self,
        tenant: &Tenant,
        path: &ResourcePath,
        secret: &Secret,
        update: SecretUpdate<'_>,
    ) -> Result<Secret, StoreError> {
        let was = secret.terms.clone();
        let terms = Terms {
            allow_simulated: update.allow_simulated.unwrap_or(was.allow_simulated),
            policy: update.policy.map_or(was.policy, str::to_owned),
            rules: update.rules.unwrap_or(was.rules),
        };
        let value = self.open_secret(tenant, path, secret)?;
        let stored =
            self.root.encrypt(context(tenant, path, secret.version, &terms), &value).map_err(StoreError::Key)?;
        Ok(Secret { terms, stored, expires: update.expires.unwrap_or(secret.expires), ..secret.clone() })
    }
}
