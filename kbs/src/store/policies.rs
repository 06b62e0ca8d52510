//! Release policies that a tenant keeps at the broker, by name. Whoever refers to one decides by its text of that moment.

use std::collections::BTreeMap;

use coffer_verifier::binding::length_prefixed;

use super::{
    BROKER, Secret, StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::tenant::Tenant;

/// A policy as a tenant keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Its name.
    pub name: String,
    /// Rego.
    pub text: String,
    /// Who put it.
    pub by: String,
    /// When.
    pub put_unix: i64,
}

impl StoredPolicy {
    /// What takes the place of one that is damaged.
    pub(super) fn that_refuses(key: &RowKey) -> Self {
        Self { name: key.text(0), text: REFUSES.to_owned(), by: BROKER.to_owned(), put_unix: 0 }
    }
}

const REFUSES: &str = "package damaged

allow := false

deny contains \"policy: it was damaged and given up in a repair; put it again\"
";

impl Record for StoredPolicy {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[self.text.as_bytes(), self.by.as_bytes(), &self.put_unix.to_be_bytes()])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let policy = Self { name: key.text(0), text: fields.text()?, by: fields.text()?, put_unix: fields.signed()? };
        fields.end(policy)
    }
}

impl Ledger {
    /// Keeps a policy, in place of one of its name. True if there was none.
    ///
    /// # Errors
    /// As the store.
    pub async fn put_policy(&mut self, tenant: &Tenant, policy: &StoredPolicy) -> Result<bool, StoreError> {
        let key = key(tenant, &policy.name);
        let added = !self.has(&key);
        self.put_record(key, policy).await?;
        Ok(added)
    }

    /// The policy of a name.
    ///
    /// # Errors
    /// As the store.
    pub async fn policy(&mut self, tenant: &Tenant, name: &str) -> Result<Option<StoredPolicy>, StoreError> {
        self.record(&key(tenant, name)).await
    }

    /// True if the tenant keeps one of this name, believed or not.
    pub fn has_policy(&mut self, tenant: &Tenant, name: &str) -> bool {
        self.has(&key(tenant, name))
    }

    /// Removes a policy. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn remove_policy(&mut self, tenant: &Tenant, name: &str) -> Result<bool, StoreError> {
        self.remove_record(key(tenant, name)).await
    }

    /// Names of a tenant's policies.
    pub fn policy_names(&mut self, tenant: &Tenant) -> Vec<String> {
        self.keys(Kind::Policy, tenant).iter().map(|key| key.text(0)).collect()
    }

    /// Every policy of a tenant.
    ///
    /// # Errors
    /// As the store.
    pub async fn policies(&mut self, tenant: &Tenant) -> Result<Vec<Result<StoredPolicy, StoreError>>, StoreError> {
        let keys = self.keys(Kind::Policy, tenant);
        self.records(keys).await
    }

    /// What of a tenant refers to a policy, in words.
    ///
    /// # Errors
    /// As the store.
    pub async fn policy_users(&mut self, tenant: &Tenant, name: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.policies_named(tenant).await?.remove(name).unwrap_or_default())
    }

    /// Every policy that something of a tenant refers to, with what does, in words: nothing that could be released is left out, a
    /// deleted secret neither. A row that is not believed refers to nothing, for it releases nothing.
    ///
    /// # Errors
    /// As the store.
    pub async fn policies_named(&mut self, tenant: &Tenant) -> Result<BTreeMap<String, Vec<String>>, StoreError> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for key in self.keys(Kind::SecretVersion, tenant) {
            match self.record::<Secret>(&key).await {
                Ok(Some(secret)) if !secret.is_destroyed() => {
                    let user = format!("version {} of secret {}", secret.version, key.text(0));
                    users.entry(secret.terms.policy).or_default().push(user);
                }
                Ok(_) | Err(StoreError::Tampered { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for context in self.sealing_contexts(tenant).await?.into_iter().flatten() {
            let user = format!("sealing context {}", String::from_utf8_lossy(&context.context));
            users.entry(context.terms.policy).or_default().push(user);
        }
        for profile in self.certificate_profiles(tenant).await?.into_iter().flatten() {
            users.entry(profile.terms.policy).or_default().push(format!("certificate profile {}", profile.name));
        }
        Ok(users)
    }
}

fn key(tenant: &Tenant, name: &str) -> RowKey {
    RowKey::of(Kind::Policy, tenant, &[name.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_the_place_of_a_damaged_policy_parses_and_refuses() {
        let tenant = Tenant::parse("acme").unwrap();
        let kept = StoredPolicy::that_refuses(&key(&tenant, "web"));
        let policy = coffer_policies::Policy::parse(&kept.name, &kept.text).unwrap();
        let decision = policy.decide(&serde_json::json!({}));
        assert!(!decision.allows() && decision.reasons()[0].contains("given up in a repair"), "{decision:?}");
        assert_eq!(StoredPolicy::decode(&key(&tenant, "web"), &kept.encode()), Some(kept));
    }
}
