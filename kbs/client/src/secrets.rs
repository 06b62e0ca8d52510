//! The operator's side of secrets: values go in, and never come back.

use std::collections::BTreeMap;

use coffer_spec::SecretPath;
use coffer_verifier::Expiry;
use secrecy::{ExposeSecret, SecretBox};

use crate::{
    admin::{AdminClient, done, expiry, given, seconds},
    error::ClientError,
    kbs::admin::v1,
    terms::describe_rules,
};

/// Words for people and scripts, by name.
pub type Labels = BTreeMap<String, String>;

/// Check-and-set condition of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there.
    Any,
    /// There must be none.
    Absent,
    /// This version must be the latest.
    Version(u64),
}

/// A secret to store. What is left out stays as it was, or is the broker's default for a new secret.
pub struct PutSecret<'a> {
    /// Tenant.
    pub tenant: &'a str,
    /// Where.
    pub path: &'a SecretPath,
    /// What.
    pub value: &'a SecretBox<Vec<u8>>,
    /// Evidence under a simulated anchor may have it.
    pub allow_simulated: Option<bool>,
    /// Condition.
    pub expected: Expected,
    /// Name of the release policy; empty: as it was.
    pub policy: &'a str,
    /// Typed rules.
    pub rules: Option<v1::Rules>,
    /// Labels.
    pub labels: Option<Labels>,
    /// When this version ends.
    pub expires: Expiry,
}

/// What a put did.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// What is current now.
    pub now: Stated,
    /// What was current until now; nothing: the secret is new, or was deleted.
    pub before: Option<Stated>,
}

/// What is said about a version of a secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Stated {
    /// The version.
    pub version: u64,
    /// Its release policy.
    pub policy: String,
    /// Whether simulated evidence may have it.
    pub allow_simulated: bool,
    /// Typed rules.
    pub rules: v1::Rules,
    /// Labels of the secret.
    pub labels: Labels,
}

impl Stored {
    /// What changed, in words, one line each: that it is new, or the version it follows; then what else is not as before.
    pub fn changes(&self) -> Vec<String> {
        let may = |allowed| if allowed { "allowed" } else { "not allowed" };
        let now = &self.now;
        let labels = |labels: &Labels| {
            let words: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        let Some(before) = &self.before else {
            let mut all = vec![
                format!("version {}, created", now.version),
                format!("policy {}", now.policy),
                format!("simulated evidence {}", may(now.allow_simulated)),
            ];
            if now.rules != v1::Rules::default() {
                all.push(format!("rules {}", describe_rules(&now.rules)));
            }
            if !now.labels.is_empty() {
                all.push(format!("labels {}", labels(&now.labels)));
            }
            return all;
        };
        let mut changes = vec![format!("version {} after version {}", now.version, before.version)];
        if before.policy != now.policy {
            changes.push(format!("policy {}, was {}", now.policy, before.policy));
        }
        if before.allow_simulated != now.allow_simulated {
            let (is, was) = (may(now.allow_simulated), may(before.allow_simulated));
            changes.push(format!("simulated evidence {is}, was {was}"));
        }
        if before.rules != now.rules {
            changes.push(format!("rules {}, were {}", describe_rules(&now.rules), describe_rules(&before.rules)));
        }
        if before.labels != now.labels {
            changes.push(format!("labels {}, were {}", labels(&now.labels), labels(&before.labels)));
        }
        changes
    }
}

/// One version of a secret, without its value.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretVersion {
    /// Its number.
    pub version: u64,
    /// Whether simulated evidence may have it.
    pub allow_simulated: bool,
    /// Name of its release policy.
    pub policy: String,
    /// Typed rules.
    pub rules: v1::Rules,
    /// Seconds since 1970.
    pub created_unix: i64,
    /// When it ends.
    pub expires: Expiry,
    /// When it was deleted, seconds since 1970.
    pub deleted_unix: Option<i64>,
    /// True if its value is gone.
    pub destroyed: bool,
    /// Bytes.
    pub length: u64,
}

/// What the broker tells about a secret; never its value.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretInfo {
    /// `kbs:///repository/type/tag`, as the broker states it.
    pub path: String,
    /// The current version.
    pub current: SecretVersion,
    /// Labels.
    pub labels: Labels,
    /// Versions below are not released.
    pub minimum_version: u64,
    /// When it was deleted as a whole, seconds since 1970.
    pub deleted_unix: Option<i64>,
}

/// A secret with all its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretMeta {
    /// The secret; nothing if there is none, or its current version is damaged.
    pub secret: Option<SecretInfo>,
    /// Its versions, oldest first.
    pub versions: Vec<SecretVersion>,
    /// Versions the broker does not believe, in its words.
    pub damaged: Vec<String>,
}

impl AdminClient {
    /// Stores a secret; tells its version, and what changed.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] if the condition does not hold.
    pub async fn put_secret(&self, put: PutSecret<'_>) -> Result<Stored, ClientError> {
        let request = v1::PutSecretRequest {
            tenant: put.tenant.to_owned(),
            path: put.path.to_string(),
            value: put.value.expose_secret().clone(),
            allow_simulated: put.allow_simulated,
            expected_version: match put.expected {
                Expected::Any => None,
                Expected::Absent => Some(0),
                Expected::Version(version) => Some(version),
            },
            policy: given(put.policy),
            rules: put.rules,
            labels: put.labels.map(to_labels),
            expires_unix: seconds(put.expires),
        };
        let response = done(self.admin.clone().put_secret(request).await)?;
        let now = response.now.ok_or_else(|| ClientError::Protocol { cause: "no version in the answer".into() })?;
        Ok(Stored { now: now.into(), before: response.before.map(Stated::from) })
    }

    /// Lists a tenant's secrets; with `deleted`, those that are deleted too.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_secrets(&self, tenant: &str, deleted: bool) -> Result<Vec<SecretInfo>, ClientError> {
        let request = v1::ListSecretsRequest { tenant: tenant.to_owned(), deleted };
        let response = done(self.admin.clone().list_secrets(request).await)?;
        response.secrets.into_iter().map(SecretInfo::try_from).collect()
    }

    /// A secret with all its versions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_meta(&self, tenant: &str, path: &SecretPath) -> Result<SecretMeta, ClientError> {
        let request = v1::GetSecretMetaRequest { tenant: tenant.to_owned(), path: path.to_string() };
        let response = done(self.admin.clone().get_secret_meta(request).await)?;
        Ok(SecretMeta {
            secret: response.secret.map(SecretInfo::try_from).transpose()?,
            versions: response.versions.into_iter().map(SecretVersion::try_from).collect::<Result<_, _>>()?,
            damaged: response.damaged,
        })
    }

    /// Deletes a secret, or one version; false if there was none. [`Self::undelete_secret`] takes it back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_secret(
        &self,
        tenant: &str,
        path: &SecretPath,
        version: Option<u64>,
    ) -> Result<bool, ClientError> {
        let request = v1::DeleteSecretRequest { tenant: tenant.to_owned(), path: path.to_string(), version };
        Ok(done(self.admin.clone().delete_secret(request).await)?.existed)
    }

    /// Takes a deletion back; false if nothing was deleted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn undelete_secret(
        &self,
        tenant: &str,
        path: &SecretPath,
        version: Option<u64>,
    ) -> Result<bool, ClientError> {
        let request = v1::UndeleteSecretRequest { tenant: tenant.to_owned(), path: path.to_string(), version };
        Ok(done(self.admin.clone().undelete_secret(request).await)?.existed)
    }

    /// Destroys the value of a version for good; false if there was none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn destroy_secret(&self, tenant: &str, path: &SecretPath, version: u64) -> Result<bool, ClientError> {
        let request = v1::DestroySecretRequest { tenant: tenant.to_owned(), path: path.to_string(), version };
        Ok(done(self.admin.clone().destroy_secret(request).await)?.existed)
    }

    /// Says the least version that is released, and the labels; what is left out stays. False if there is no such secret.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] for a minimum above the current version.
    pub async fn update_secret(
        &self,
        tenant: &str,
        path: &SecretPath,
        minimum_version: Option<u64>,
        labels: Option<Labels>,
    ) -> Result<bool, ClientError> {
        let request = v1::UpdateSecretRequest {
            tenant: tenant.to_owned(),
            path: path.to_string(),
            minimum_version,
            labels: labels.map(to_labels),
        };
        Ok(done(self.admin.clone().update_secret(request).await)?.existed)
    }
}

fn to_labels(labels: Labels) -> v1::Labels {
    v1::Labels { labels: labels.into_iter().map(|(name, value)| v1::Label { name, value }).collect() }
}

fn from_labels(labels: Option<v1::Labels>) -> Labels {
    labels.unwrap_or_default().labels.into_iter().map(|label| (label.name, label.value)).collect()
}

impl From<v1::SecretStated> for Stated {
    fn from(wire: v1::SecretStated) -> Self {
        let terms = wire.terms.unwrap_or_default();
        Self {
            version: wire.version,
            policy: terms.policy.unwrap_or_default(),
            allow_simulated: terms.allow_simulated,
            rules: terms.rules.unwrap_or_default(),
            labels: from_labels(wire.labels),
        }
    }
}

impl TryFrom<v1::SecretVersion> for SecretVersion {
    type Error = ClientError;

    fn try_from(wire: v1::SecretVersion) -> Result<Self, ClientError> {
        let terms = wire.terms.unwrap_or_default();
        Ok(Self {
            version: wire.version,
            allow_simulated: terms.allow_simulated,
            policy: terms.policy.unwrap_or_default(),
            rules: terms.rules.unwrap_or_default(),
            created_unix: wire.created_unix,
            expires: expiry(wire.expires_unix)?,
            deleted_unix: wire.deleted_unix,
            destroyed: wire.destroyed,
            length: wire.length,
        })
    }
}

impl TryFrom<v1::SecretInfo> for SecretInfo {
    type Error = ClientError;

    fn try_from(wire: v1::SecretInfo) -> Result<Self, ClientError> {
        let none = || ClientError::Protocol { cause: "a secret without a version".to_owned() };
        Ok(Self {
            path: wire.path,
            current: wire.current.ok_or_else(none)?.try_into()?,
            labels: from_labels(wire.labels),
            minimum_version: wire.minimum_version,
            deleted_unix: wire.deleted_unix,
        })
    }
}
