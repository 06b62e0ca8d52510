//! Secrets: versions, check-and-set, soft delete, undelete, destruction. A head row per secret says which version counts, so
//! that a newer version cannot be hidden and a deletion cannot be undone by whoever writes to the database.

use std::collections::BTreeMap;

use coffer_kbs_client::ResourcePath;
use coffer_verifier::{Expiry, UnixTime, binding::length_prefixed};
use zeroize::Zeroizing;

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
    terms::{decode_rules, encode_rules},
};
use crate::{
    keys::{KeyError, RootKey, SecretContext, StoredCiphertext},
    tenant::Tenant,
    terms::{Rules, Terms},
};

/// Words for people and scripts, by name.
pub type Labels = BTreeMap<String, String>;

/// A value to store. What is left out is kept from the version before, or is the default of a secret that is new.
#[derive(Clone, Debug)]
pub struct NewSecret<'a> {
    /// Tenant.
    pub tenant: &'a Tenant,
    /// Path.
    pub path: &'a ResourcePath,
    /// The value.
    pub value: &'a [u8],
    /// May simulated evidence have it.
    pub allow_simulated: Option<bool>,
    /// Release policy by name.
    pub policy: Option<&'a str>,
    /// Typed rules.
    pub rules: Option<Rules>,
    /// Labels of the secret.
    pub labels: Option<Labels>,
    /// From when on this version is not released.
    pub expires: Option<Expiry>,
    /// Version that must be current: 0, none; absent, any.
    pub expected_version: Option<u64>,
}

impl<'a> NewSecret<'a> {
    /// A value, and nothing said beside: the rest is as it was, or as the shipped policy has it.
    pub fn plain(tenant: &'a Tenant, path: &'a ResourcePath, value: &'a [u8]) -> Self {
        Self {
            tenant,
            path,
            value,
            allow_simulated: None,
            policy: None,
            rules: None,
            labels: None,
            expires: None,
            expected_version: None,
        }
    }
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// What is current now.
    pub now: Described,
    /// What was current until now.
    pub before: Option<Described>,
    /// Values of this path may be released to others, or for longer, than the last one; also where that is damaged.
    pub widens: bool,
}

/// A version with all that can be said anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Version, terms and labels.
    pub stated: Stated,
    /// From when on it is not released.
    pub expires: Expiry,
    /// Versions below are not released.
    pub minimum_version: u64,
}

impl Described {
    /// True if this may let out what `before` did not. Which of two policies or rules asks for more nobody can say: another one may.
    pub(super) fn widens(&self, before: &Self) -> bool {
        let (was, is) = (&before.stated.terms, &self.stated.terms);
        let longer = match (before.expires, self.expires) {
            (Expiry::At(was), Expiry::At(is)) => is > was,
            (Expiry::At(_), Expiry::Never) => true,
            (Expiry::Never, _) => false,
        };
        is.policy != was.policy || is.rules != was.rules || is.allow_simulated && !was.allow_simulated || longer
    }

    pub(super) fn of(secret: &Secret, head: &Head) -> Self {
        let stated = Stated { version: secret.version, terms: secret.terms.clone(), labels: head.labels.clone() };
        Self { stated, expires: secret.expires, minimum_version: head.minimum_version }
    }
}

/// What is said about a version of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// The version.
    pub version: u64,
    /// On what terms it is released.
    pub terms: Terms,
    /// Labels of the secret.
    pub labels: Labels,
}

/// A stored version without its value: what the release decision needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Which version.
    pub version: u64,
    /// On what terms it is released.
    pub terms: Terms,
    /// When it was put.
    pub created_unix: i64,
    /// From when on it is not released.
    pub expires: Expiry,
    /// When it was deleted.
    pub deleted_unix: Option<i64>,
    pub(super) stored: StoredCiphertext,
}

/// Why there is no version to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// No secret, or no such version.
    #[error("secret: there is none at this path")]
    Missing,
    /// The secret was deleted.
    #[error("secret: it was deleted")]
    Deleted,
    /// The version was deleted.
    #[error("secret: version {0} was deleted")]
    VersionDeleted(u64),
    /// Its value is gone.
    #[error("secret: version {0} was destroyed")]
    Destroyed(u64),
    /// Its row was lost, and a repair gave it up.
    #[error("secret: version {0} was lost, and given up by a repair")]
    GivenUp(u64),
    /// There is no such version.
    #[error("secret: there is no version {0}")]
    NoVersion(u64),
    /// It is too old.
    #[error("secret: found version {found}, expected {least} or higher")]
    BelowMinimum {
        /// Asked for.
        found: u64,
        /// Least released.
        least: u64,
    },
}

/// A secret as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInfo {
    /// Path.
    pub path: String,
    /// Current version, with everything but the value.
    pub secret: Secret,
    /// Bytes of its value.
    pub length: u64,
    /// Labels.
    pub labels: Labels,
    /// Versions below are not released.
    pub minimum_version: u64,
    /// When it was deleted as a whole.
    pub deleted_unix: Option<i64>,
}

pub(super) struct Head {
    pub(super) version: u64,
    /// When it was deleted.
    pub(super) deleted_unix: Option<i64>,
    pub(super) minimum_version: u64,
    pub(super) labels: Labels,
}

impl Head {
    pub(super) fn new(version: u64, deleted_unix: Option<i64>) -> Self {
        Self { version, deleted_unix, minimum_version: 0, labels: Labels::new() }
    }
}

impl Record for Head {
    fn encode(&self) -> Vec<u8> {
        let labels: Vec<&[u8]> =
            self.labels.iter().flat_map(|(name, text)| [name.as_bytes(), text.as_bytes()]).collect();
        length_prefixed(&[
            &self.version.to_be_bytes(),
            &time(self.deleted_unix),
            &self.minimum_version.to_be_bytes(),
            &length_prefixed(&labels),
        ])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let mut head = Self::new(fields.unsigned()?, fields.time()?);
        // The first rows of this kind ended here.
        if !fields.0.is_empty() {
            head.minimum_version = fields.unsigned()?;
            let mut labels = Fields(fields.bytes()?);
            while !labels.0.is_empty() {
                head.labels.insert(labels.text()?, labels.text()?);
            }
        }
        fields.end(head)
    }
}

impl Record for Secret {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[
            &[u8::from(self.terms.allow_simulated)],
            self.terms.policy.as_bytes(),
            &self.created_unix.to_be_bytes(),
            &self.stored.salt,
            &self.stored.nonce,
            &self.stored.ciphertext,
            &encode_rules(&self.terms.rules),
            &self.expires.to_secs().to_be_bytes(),
            &time(self.deleted_unix),
        ])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let version = u64::from_be_bytes(key.part(1).try_into().ok()?);
        let mut terms = Terms { allow_simulated: fields.flag()?, policy: fields.text()?, rules: Rules::default() };
        let created_unix = fields.signed()?;
        let stored =
            StoredCiphertext { salt: fields.array()?, nonce: fields.array()?, ciphertext: fields.bytes()?.to_vec() };
        let (mut expires, mut deleted_unix) = (Expiry::Never, None);
        // The first rows of this kind ended here.
        if !fields.0.is_empty() {
            terms.rules = decode_rules(fields.bytes()?)?;
            expires = Expiry::from_secs(fields.signed()?).ok()?;
            deleted_unix = fields.time()?;
        }
        fields.end(Self { version, terms, created_unix, expires, deleted_unix, stored })
    }
}

fn time(unix: Option<i64>) -> Vec<u8> {
    unix.map(|unix| unix.to_be_bytes().to_vec()).unwrap_or_default()
}

impl Secret {
    /// One that lies there already encrypted.
    pub(super) fn of(version: u64, terms: Terms, created_unix: i64, stored: StoredCiphertext) -> Self {
        Self { version, terms, created_unix, expires: Expiry::Never, deleted_unix: None, stored }
    }

    /// What a repair leaves of a version that was damaged, so that its number is never given again: nobody knows any more when it was
    /// put, or on what terms, and no policy has a name without letters.
    pub(super) fn given_up(version: u64) -> Self {
        let stored = StoredCiphertext { salt: [0; 32], nonce: [0; 12], ciphertext: Vec::new() };
        Self::of(version, Terms { policy: String::new(), ..Terms::default() }, 0, stored)
    }

    fn is_given_up(&self) -> bool {
        self.is_destroyed() && self.terms.policy.is_empty()
    }

    /// True if its value is gone for good.
    pub fn is_destroyed(&self) -> bool {
        self.stored.ciphertext.is_empty()
    }

    /// Bytes of its value.
    pub fn length(&self) -> u64 {
        self.stored.ciphertext.len().saturating_sub(TAG_LENGTH) as u64
    }

    /// Why it is not released whoever asks; expiry is a question of the time.
    fn absent(&self) -> Option<Absent> {
        if self.is_given_up() {
            Some(Absent::GivenUp(self.version))
        } else if self.is_destroyed() {
            Some(Absent::Destroyed(self.version))
        } else if self.deleted_unix.is_some() {
            Some(Absent::VersionDeleted(self.version))
        } else {
            None
        }
    }
}

impl Ledger {
    /// Puts a value as a new version.
    ///
    /// # Errors
    /// [`StoreError::Version`] if check-and-set fails, else as the store.
    pub async fn put_secret(&mut self, new: NewSecret<'_>, now_unix: i64) -> Result<Put, StoreError> {
        let (tenant, path) = (new.tenant, new.path);
        let head_key = head_key(tenant, path);
        let head: Option<Head> = match self.record(&head_key).await {
            // Put again: as after a repair, so that the numbers go on and what was there before stays away.
            Err(StoreError::Tampered { .. }) => Some(self.deleted_head(&head_key)),
            head => head?,
        };
        let live = head.as_ref().filter(|head| head.deleted_unix.is_none());
        let found = live.map_or(0, |head| head.version);
        if let Some(expected) = new.expected_version
            && expected != found
        {
            return Err(StoreError::Version { expected, found });
        }
        let last = match &head {
            None => None,
            Some(head) => match self.record::<Secret>(&version_key(tenant, path, head.version)).await {
                Ok(secret) => secret.filter(|secret| !secret.is_given_up()).map(|secret| Described::of(&secret, head)),
                // A new version is how a damaged one is mended: the numbers go on.
                Err(StoreError::Tampered { .. }) => None,
                Err(error) => return Err(error),
            },
        };
        let before = last.clone().filter(|_| live.is_some());
        let kept = before.clone().map(|before| (before.stated.terms, before.expires));
        let (kept, until) = kept.unwrap_or((Terms::default(), Expiry::Never));
        if let (None, Some(before), true) = (new.expires, &before, until.is_over(UnixTime::from_secs(now_unix))) {
            return Err(StoreError::Expired { version: before.stated.version, at: until });
        }
        let expires = new.expires.unwrap_or(until);
        let terms = Terms {
            allow_simulated: new.allow_simulated.unwrap_or(kept.allow_simulated),
            policy: new.policy.map_or(kept.policy, str::to_owned),
            rules: new.rules.unwrap_or(kept.rules),
        };
        let labels = new.labels.or_else(|| live.map(|live| live.labels.clone())).unwrap_or_default();
        // Versions go on after a deletion: a number is never given to two values. What was deleted stays so.
        let version = head.as_ref().map_or(0, |head| head.version) + 1;
        let minimum_version = match (&head, live) {
            (Some(_), None) => version,
            _ => live.map_or(0, |live| live.minimum_version),
        };
        let context = context(tenant, path, version, &terms);
        let stored = self.root.encrypt(context, new.value).map_err(StoreError::Key)?;
        let secret = Secret { expires, ..Secret::of(version, terms, now_unix, stored) };
        self.put_record(version_key(tenant, path, version), &secret).await?;
        let was_there = head.is_some();
        let head = Head { version, deleted_unix: None, minimum_version, labels };
        self.put_record(head_key, &head).await?;
        let now = Described::of(&secret, &head);
        let widens = last.as_ref().map_or(was_there, |last| now.widens(last));
        Ok(Put { now, before, widens })
    }

    /// A version of a secret that may be released, the current one where none is named; or why there is none.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] if its head or the version is not ours, or missing although nobody took it away.
    pub async fn find_secret(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
        version: Option<u64>,
    ) -> Result<Result<Secret, Absent>, StoreError> {
        let Some(head) = self.record::<Head>(&head_key(tenant, path)).await? else { return Ok(Err(Absent::Missing)) };
        if head.deleted_unix.is_some() {
            return Ok(Err(Absent::Deleted));
        }
        let wanted = version.unwrap_or(head.version);
        if wanted > head.version {
            return Ok(Err(Absent::NoVersion(wanted)));
        }
        if wanted < head.minimum_version {
            return Ok(Err(Absent::BelowMinimum { found: wanted, least: head.minimum_version }));
        }
        let secret = self.record(&version_key(tenant, path, wanted)).await?;
        // A row that is missing and counts is an error by now: earlier versions of this program took away what was damaged.
        let secret = secret.unwrap_or_else(|| Secret::given_up(wanted));
        Ok(secret.absent().map_or(Ok(secret), Err))
    }

    /// The current version of a secret; absent if there is none to release.
    ///
    /// # Errors
    /// As [`Ledger::find_secret`].
    pub async fn secret(&mut self, tenant: &Tenant, path: &ResourcePath) -> Result<Option<Secret>, StoreError> {
        Ok(self.find_secret(tenant, path, None).await?.ok())
    }

    /// Decrypts what [`Ledger::find_secret`] gave.
    ///
    /// # Errors
    /// [`StoreError::Tampered`].
    pub fn open_secret(
        &self,
        tenant: &Tenant,
        path: &ResourcePath,
        secret: &Secret,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let context = context(tenant, path, secret.version, &secret.terms);
        let what = || version_key(tenant, path, secret.version).what();
        self.root.decrypt(context, &secret.stored).map_err(|source| StoreError::Tampered { what: what(), source })
    }

    /// Marks a secret, or one version of it, as deleted; its values stay, and a later put goes on counting. True if it was
    /// there.
    ///
    /// # Errors
    /// As the store.
    pub async fn delete_secret(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
        version: Option<u64>,
        now_unix: i64,
    ) -> Result<bool, StoreError> {
        self.mark(tenant, path, version, Some(now_unix)).await
    }

    /// Takes a deletion back. True if there was one.
    ///
    /// # Errors
    /// As the store.
    pub async fn undelete_secret(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
        version: Option<u64>,
    ) -> Result<bool, StoreError> {
        self.mark(tenant, path, version, None).await
    }

    async fn mark(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
        version: Option<u64>,
        deleted_unix: Option<i64>,
    ) -> Result<bool, StoreError> {
        let Some(mut head) = self.record::<Head>(&head_key(tenant, path)).await? else { return Ok(false) };
        let Some(version) = version else {
            let changes = head.deleted_unix.is_some() != deleted_unix.is_some();
            if changes {
                head.deleted_unix = deleted_unix;
                self.put_record(head_key(tenant, path), &head).await?;
            }
            return Ok(changes);
        };
        let key = version_key(tenant, path, version);
        match self.record::<Secret>(&key).await? {
            Some(secret) if !secret.is_destroyed() && secret.deleted_unix.is_some() != deleted_unix.is_some() => {
                self.put_record(key, &Secret { deleted_unix, ..secret }).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Destroys the value of one version: nothing brings it back. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub async fn destroy_secret(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
        version: u64,
    ) -> Result<bool, StoreError> {
        let key = version_key(tenant, path, version);
        match self.record::<Secret>(&key).await? {
            Some(secret) if !secret.is_destroyed() => {
                let stored = StoredCiphertext { salt: [0; 32], nonce: [0; 12], ciphertext: Vec::new() };
                self.put_record(key, &Secret { stored, ..secret }).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// What there is about a secret, deleted or not.
    ///
    /// # Errors
    /// As [`Ledger::find_secret`].
    pub async fn secret_info(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
    ) -> Result<Option<SecretInfo>, StoreError> {
        let Some(head) = self.record::<Head>(&head_key(tenant, path)).await? else { return Ok(None) };
        let secret = self.record(&version_key(tenant, path, head.version)).await?;
        let secret = secret.unwrap_or_else(|| Secret::given_up(head.version));
        let Head { deleted_unix, minimum_version, labels, .. } = head;
        let length = secret.length();
        Ok(Some(SecretInfo { path: path.to_string(), secret, length, labels, minimum_version, deleted_unix }))
    }

    /// Every version of a secret, oldest first, with what is wrong with a row that is not believed.
    ///
    /// # Errors
    /// As the store.
    pub async fn secret_versions(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
    ) -> Result<Vec<Result<Secret, StoreError>>, StoreError> {
        let mut keys = self.keys(Kind::SecretVersion, tenant);
        keys.retain(|key| key.part(0) == path.as_str().as_bytes());
        self.records(keys).await
    }

    /// Every secret of a tenant that is not deleted, by path, without values; with what is wrong with one that is not believed.
    ///
    /// # Errors
    /// As the store.
    pub async fn secrets(&mut self, tenant: &Tenant) -> Result<Vec<Result<SecretInfo, StoreError>>, StoreError> {
        let mut found = self.all_secrets(tenant).await?;
        found.retain(|info| info.as_ref().map_or(true, |info| info.deleted_unix.is_none()));
        Ok(found)
    }

    /// The same, with those that are deleted.
    ///
    /// # Errors
    /// As the store.
    pub async fn all_secrets(&mut self, tenant: &Tenant) -> Result<Vec<Result<SecretInfo, StoreError>>, StoreError> {
        let mut found = Vec::new();
        for key in self.keys(Kind::SecretHead, tenant) {
            let Ok(path) = key.text(0).parse::<ResourcePath>() else { continue };
            match self.secret_info(tenant, &path).await {
                Err(error @ StoreError::Tampered { .. }) => found.push(Err(error)),
                other => found.extend(other?.map(Ok)),
            }
        }
        Ok(found)
    }
}

/// A version whose value is encrypted under another root key.
pub(super) fn rewrapped(key: &RowKey, body: &[u8], old: &RootKey, new: &RootKey) -> Result<Vec<u8>, KeyError> {
    let secret = Secret::decode(key, body).ok_or(KeyError::Encoding)?;
    if secret.is_destroyed() {
        return Ok(body.to_vec());
    }
    let path = key.text(0).parse::<ResourcePath>().map_err(|_| KeyError::Encoding)?;
    let tenant = key.tenant().ok_or(KeyError::Encoding)?;
    let context = context(&tenant, &path, secret.version, &secret.terms);
    let stored = new.encrypt(context, &old.decrypt(context, &secret.stored)?)?;
    Ok(Secret { stored, ..secret }.encode())
}

pub(super) fn context<'a>(
    tenant: &'a Tenant,
    path: &'a ResourcePath,
    version: u64,
    terms: &'a Terms,
) -> SecretContext<'a> {
    SecretContext {
        tenant: tenant.as_str(),
        path: path.as_str(),
        version,
        allow_simulated: terms.allow_simulated,
        policy: &terms.policy,
    }
}

pub(super) fn head_key(tenant: &Tenant, path: &ResourcePath) -> RowKey {
    RowKey::of(Kind::SecretHead, tenant, &[path.as_str().as_bytes()])
}

pub(super) fn version_key(tenant: &Tenant, path: &ResourcePath, version: u64) -> RowKey {
    RowKey::of(Kind::SecretVersion, tenant, &[path.as_str().as_bytes(), &version.to_be_bytes()])
}

const TAG_LENGTH: usize = 16;
