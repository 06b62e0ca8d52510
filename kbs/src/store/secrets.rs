//! Secrets: versions, check-and-set, soft delete. A head row per secret says which version counts, so that a newer version
//! cannot be hidden and a deletion cannot be undone by whoever writes to the database.

use coffer_kbs_client::ResourcePath;
use coffer_verifier::binding::length_prefixed;
use zeroize::Zeroizing;

use super::{
    StoreError,
    ledger::Ledger,
    record::{Fields, Record, RowKey},
    rows::Kind,
};
use crate::{
    keys::{KeyError, SecretContext, StoredCiphertext},
    tenant::Tenant,
};

/// A value to store.
#[derive(Clone, Copy)]
pub struct NewSecret<'a> {
    /// Tenant.
    pub tenant: &'a Tenant,
    /// Path.
    pub path: &'a ResourcePath,
    /// The value.
    pub value: &'a [u8],
    /// May simulated evidence have it.
    pub allow_simulated: bool,
    /// Release policy by name.
    pub policy: &'a str,
    /// Version that must be current: 0, none; absent, any.
    pub expected_version: Option<u64>,
}

/// What a put did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The new version.
    pub version: u64,
    /// What was current until now.
    pub before: Option<Before>,
}

/// What a put took the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Its version.
    pub version: u64,
    /// Whether simulated evidence could have it.
    pub allow_simulated: bool,
    /// Its release policy.
    pub policy: String,
}

/// A stored secret without its value: what the release decision needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Current version.
    pub version: u64,
    /// May simulated evidence have it.
    pub allow_simulated: bool,
    /// Release policy.
    pub policy: String,
    /// When it was put.
    pub created_unix: i64,
    stored: StoredCiphertext,
}

/// A line of the listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInfo {
    /// Path.
    pub path: String,
    /// Current version, with everything but the value.
    pub secret: Secret,
    /// Bytes of the value.
    pub length: u64,
}

pub(super) struct Head {
    pub(super) version: u64,
    /// When it was deleted.
    pub(super) deleted_unix: Option<i64>,
}

impl Record for Head {
    fn encode(&self) -> Vec<u8> {
        let deleted = self.deleted_unix.map(i64::to_be_bytes);
        length_prefixed(&[&self.version.to_be_bytes(), deleted.as_ref().map_or(&[], <[u8; 8]>::as_slice)])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let version = fields.unsigned()?;
        let deleted_unix = match fields.bytes()? {
            [] => None,
            time => Some(i64::from_be_bytes(time.try_into().ok()?)),
        };
        fields.end(Self { version, deleted_unix })
    }
}

impl Record for Secret {
    fn encode(&self) -> Vec<u8> {
        length_prefixed(&[
            &[u8::from(self.allow_simulated)],
            self.policy.as_bytes(),
            &self.created_unix.to_be_bytes(),
            &self.stored.salt,
            &self.stored.nonce,
            &self.stored.ciphertext,
        ])
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let secret = Self {
            version: u64::from_be_bytes(key.part(1).try_into().ok()?),
            allow_simulated: match fields.array()? {
                [0] => false,
                [1] => true,
                _ => return None,
            },
            policy: fields.text()?,
            created_unix: fields.signed()?,
            stored: StoredCiphertext {
                salt: fields.array()?,
                nonce: fields.array()?,
                ciphertext: fields.bytes()?.to_vec(),
            },
        };
        fields.end(secret)
    }
}

impl Secret {
    /// One that lies there already encrypted.
    pub(super) fn of(
        version: u64,
        allow_simulated: bool,
        policy: String,
        created_unix: i64,
        stored: StoredCiphertext,
    ) -> Self {
        Self { version, allow_simulated, policy, created_unix, stored }
    }
}

impl Ledger {
    /// Puts a value as a new version.
    ///
    /// # Errors
    /// [`StoreError::Version`] if check-and-set fails, else as the store.
    pub async fn put_secret(&mut self, new: NewSecret<'_>, now_unix: i64) -> Result<Put, StoreError> {
        let NewSecret { tenant, path, allow_simulated, policy, .. } = new;
        let head: Option<Head> = self.record(&head_key(tenant, path)).await?;
        let live = head.as_ref().filter(|head| head.deleted_unix.is_none()).map_or(0, |head| head.version);
        if let Some(expected) = new.expected_version
            && expected != live
        {
            return Err(StoreError::Version { expected, found: live });
        }
        let before = match self.secret(tenant, path).await {
            Ok(secret) => secret.map(|Secret { version, allow_simulated, policy, .. }| Before {
                version,
                allow_simulated,
                policy,
            }),
            // A new version is how a damaged one is mended: its head holds, so the numbers go on.
            Err(StoreError::Tampered { .. }) => None,
            Err(error) => return Err(error),
        };
        // Versions go on after a deletion: a number is never given to two values.
        let version = head.map_or(0, |head| head.version) + 1;
        let context = SecretContext { tenant: tenant.as_str(), path: path.as_str(), version, allow_simulated, policy };
        let stored = self.root.encrypt(context, new.value).map_err(StoreError::Key)?;
        let secret = Secret { version, allow_simulated, policy: policy.to_owned(), created_unix: now_unix, stored };
        self.put_record(version_key(tenant, path, version), &secret).await?;
        self.put_record(head_key(tenant, path), &Head { version, deleted_unix: None }).await?;
        Ok(Put { version, before })
    }

    /// The current version of a secret; absent if there is none or it was deleted.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] if its head is not ours or the version it names is gone.
    pub async fn secret(&mut self, tenant: &Tenant, path: &ResourcePath) -> Result<Option<Secret>, StoreError> {
        let head: Option<Head> = self.record(&head_key(tenant, path)).await?;
        let Some(head) = head.filter(|head| head.deleted_unix.is_none()) else { return Ok(None) };
        let key = version_key(tenant, path, head.version);
        let gone = || StoreError::Tampered { what: key.what(), source: KeyError::Missing };
        self.record(&key).await?.ok_or_else(gone).map(Some)
    }

    /// Decrypts what [`Ledger::secret`] gave.
    ///
    /// # Errors
    /// [`StoreError::Tampered`].
    pub fn open_secret(
        &self,
        tenant: &Tenant,
        path: &ResourcePath,
        secret: &Secret,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let context = SecretContext {
            tenant: tenant.as_str(),
            path: path.as_str(),
            version: secret.version,
            allow_simulated: secret.allow_simulated,
            policy: &secret.policy,
        };
        let what = || version_key(tenant, path, secret.version).what();
        self.root.decrypt(context, &secret.stored).map_err(|source| StoreError::Tampered { what: what(), source })
    }

    /// Marks a secret as deleted; its versions stay, and a later put goes on counting.
    ///
    /// # Errors
    /// As the store.
    pub async fn delete_secret(
        &mut self,
        tenant: &Tenant,
        path: &ResourcePath,
        now_unix: i64,
    ) -> Result<bool, StoreError> {
        match self.record::<Head>(&head_key(tenant, path)).await? {
            Some(Head { version, deleted_unix: None }) => {
                let head = Head { version, deleted_unix: Some(now_unix) };
                self.put_record(head_key(tenant, path), &head).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Every secret of a tenant, by path, without values.
    ///
    /// # Errors
    /// As [`Ledger::secret`].
    pub async fn secrets(&mut self, tenant: &Tenant) -> Result<Vec<SecretInfo>, StoreError> {
        let mut found = Vec::new();
        for key in self.keys(Kind::SecretHead, tenant) {
            let path = key.text(0);
            let Ok(parsed) = path.parse::<ResourcePath>() else { continue };
            if let Some(secret) = self.secret(tenant, &parsed).await? {
                let length = secret.stored.ciphertext.len().saturating_sub(TAG_LENGTH) as u64;
                found.push(SecretInfo { path, secret, length });
            }
        }
        Ok(found)
    }
}

pub(super) fn head_key(tenant: &Tenant, path: &ResourcePath) -> RowKey {
    RowKey::of(Kind::SecretHead, tenant, &[path.as_str().as_bytes()])
}

pub(super) fn version_key(tenant: &Tenant, path: &ResourcePath, version: u64) -> RowKey {
    RowKey::of(Kind::SecretVersion, tenant, &[path.as_str().as_bytes(), &version.to_be_bytes()])
}

const TAG_LENGTH: usize = 16;
