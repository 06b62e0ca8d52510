//! The operator's side of secrets: values go in, and never come back.

use std::collections::BTreeMap;

use coffer_spec::SecretPath;
use coffer_verifier::{Expiry, UnixTime};
use secrecy::{ExposeSecret, SecretBox};

use crate::{
    admin::{AdminClient, expiry, given, seconds},
    error::ClientError,
    kbs::admin::v1,
    listed::Listed,
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
    pub expires: Option<Expiry>,
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
    /// When the version ends, seconds since 1970.
    pub expires_unix: Option<i64>,
    /// Versions below are not released.
    pub minimum_version: u64,
}

/// What is to be said anew. What is left out stays as it is.
#[derive(Clone, Debug, Default)]
pub struct SecretUpdate {
    /// Whose terms; nothing: the current version's.
    pub version: Option<u64>,
    /// Versions below are not released.
    pub minimum_version: Option<u64>,
    /// Labels of the secret.
    pub labels: Option<Labels>,
    /// Evidence under a simulated anchor may have the version.
    pub allow_simulated: Option<bool>,
    /// Name of its release policy.
    pub policy: Option<String>,
    /// Its typed rules.
    pub rules: Option<v1::Rules>,
    /// When it ends.
    pub expires: Option<Expiry>,
}

/// What an update found and left; nothing of a version that is damaged.
#[derive(Clone, Debug, PartialEq)]
pub struct Updated {
    /// As it was.
    pub before: Option<Stated>,
    /// As it is.
    pub now: Option<Stated>,
}

impl Updated {
    /// What changed, in words, one line each; nothing did where there is none.
    pub fn changes(&self) -> Vec<String> {
        match (&self.before, &self.now) {
            (Some(before), Some(now)) => changes(before, now),
            _ => vec!["the version is damaged; what is said beside it is as you said".to_owned()],
        }
    }
}

impl Stored {
    /// What changed, in words, one line each: that it is new, or the version it follows; then what else is not as before.
    pub fn changes(&self) -> Vec<String> {
        let now = &self.now;
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
                all.push(format!("labels {}", words(&now.labels)));
            }
            if now.expires_unix.is_some() {
                all.push(format!("expires {}", until(now.expires_unix)));
            }
            return all;
        };
        let mut all = vec![format!("version {} after version {}", now.version, before.version)];
        all.extend(changes(before, now));
        if now.expires_unix.is_some() && now.expires_unix == before.expires_unix {
            all.push(format!("expires {}, as before", until(now.expires_unix)));
        }
        all
    }
}

/// What is said otherwise than before.
fn changes(before: &Stated, now: &Stated) -> Vec<String> {
    let mut changes = Vec::new();
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
        changes.push(format!("labels {}, were {}", words(&now.labels), words(&before.labels)));
    }
    if before.expires_unix != now.expires_unix {
        changes.push(format!("expires {}, was {}", until(now.expires_unix), until(before.expires_unix)));
    }
    if before.minimum_version != now.minimum_version {
        changes.push(format!("released from version {} on, was {}", now.minimum_version, before.minimum_version));
    }
    changes
}

fn until(unix: Option<i64>) -> String {
    unix.map_or_else(|| "never".to_owned(), |unix| Expiry::At(UnixTime(unix)).to_string())
}

fn may(allowed: bool) -> &'static str {
    if allowed { "allowed" } else { "not allowed" }
}

fn words(labels: &Labels) -> String {
    let words: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
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
            expires_unix: put.expires.and_then(seconds),
            never_expires: put.expires == Some(Expiry::Never),
        };
        let response = self.done(self.admin.clone().put_secret(request)).await?;
        let now = response.now.ok_or_else(|| ClientError::Protocol { cause: "no version in the answer".into() })?;
        Ok(Stored { now: now.into(), before: response.before.map(Stated::from) })
    }

    /// Lists a tenant's secrets; with `deleted`, those that are deleted too.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_secrets(&self, tenant: &str, deleted: bool) -> Result<Listed<SecretInfo>, ClientError> {
        let request = v1::ListSecretsRequest { tenant: tenant.to_owned(), deleted };
        let response = self.done(self.admin.clone().list_secrets(request)).await?;
        Listed::read(response.secrets, response.damaged, SecretInfo::try_from)
    }

    /// A secret with all its versions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn secret_meta(&self, tenant: &str, path: &SecretPath) -> Result<SecretMeta, ClientError> {
        let request = v1::GetSecretMetaRequest { tenant: tenant.to_owned(), path: path.to_string() };
        let response = self.done(self.admin.clone().get_secret_meta(request)).await?;
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
        Ok(self.done(self.admin.clone().delete_secret(request)).await?.existed)
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
        Ok(self.done(self.admin.clone().undelete_secret(request)).await?.existed)
    }

    /// Destroys the value of a version for good; false if there was none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn destroy_secret(&self, tenant: &str, path: &SecretPath, version: u64) -> Result<bool, ClientError> {
        let request = v1::DestroySecretRequest { tenant: tenant.to_owned(), path: path.to_string(), version };
        Ok(self.done(self.admin.clone().destroy_secret(request)).await?.existed)
    }

    /// Says anew what is said of a secret, and on what terms a version is released; what is left out stays. Nothing if there is no such
    /// secret or version.
    ///
    /// # Errors
    /// [`ClientError::Rejected`] for a minimum above the current version.
    pub async fn update_secret(
        &self,
        tenant: &str,
        path: &SecretPath,
        update: SecretUpdate,
    ) -> Result<Option<Updated>, ClientError> {
        let SecretUpdate { version, minimum_version, labels, allow_simulated, policy, rules, expires } = update;
        let request = v1::UpdateSecretRequest {
            tenant: tenant.to_owned(),
            path: path.to_string(),
            minimum_version,
            labels: labels.map(to_labels),
            version,
            allow_simulated,
            policy,
            rules,
            expires_unix: expires.and_then(seconds),
            never_expires: expires == Some(Expiry::Never),
        };
        let answer = self.done(self.admin.clone().update_secret(request)).await?;
        let stated = |one: Option<v1::SecretStated>| one.map(Stated::from);
        Ok(answer.existed.then(|| Updated { before: stated(answer.before), now: stated(answer.now) }))
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
            expires_unix: wire.expires_unix,
            minimum_version: wire.minimum_version,
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
