//! Secrets: versions, check-and-set, soft delete. A head row per secret says which version counts, under a MAC, so that
//! a newer version cannot be hidden and a deletion cannot be undone by whoever writes to the file.

use coffer_kbs_client::ResourcePath;
use rusqlite::{OptionalExtension as _, params};
use zeroize::Zeroizing;

use super::{Ledger, StoreError, integer, unsigned};
use crate::{
    keys::{RowKind, SecretContext, StoredCiphertext},
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

/// A stored secret without its value: what the release decision needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Current version.
    pub version: u64,
    /// May simulated evidence have it. Authenticated only once the value was decrypted with it.
    pub allow_simulated: bool,
    /// Release policy. Authenticated only once the value was decrypted with it.
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

struct Head {
    version: u64,
    deleted_unix: i64,
}

impl Ledger<'_> {
    /// Puts a value as a new version.
    ///
    /// # Errors
    /// [`StoreError::Version`] if check-and-set fails, else as the store.
    pub fn put_secret(&self, new: NewSecret<'_>, now_unix: i64) -> Result<u64, StoreError> {
        let (tenant, path) = (new.tenant.as_str(), new.path.as_str());
        let head = self.head(tenant, path)?;
        let live = head.as_ref().filter(|head| head.deleted_unix == 0).map_or(0, |head| head.version);
        if let Some(expected) = new.expected_version
            && expected != live
        {
            return Err(StoreError::Version { expected, found: live });
        }
        // Versions go on after a deletion: a number is never given to two values.
        let version = head.map_or(0, |head| head.version) + 1;
        let context = SecretContext { tenant, path, version, allow_simulated: new.allow_simulated, policy: new.policy };
        let stored = self.root.encrypt(context, new.value).map_err(StoreError::Key)?;
        self.transaction.execute(
            "INSERT INTO secret_versions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                tenant,
                path,
                integer("version", version)?,
                new.allow_simulated,
                new.policy,
                now_unix,
                stored.salt,
                stored.nonce,
                stored.ciphertext
            ],
        )?;
        self.write_head(tenant, path, &Head { version, deleted_unix: 0 })?;
        Ok(version)
    }

    /// The current version of a secret; absent if there is none or it was deleted.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] if its head is not ours or the version it names is gone.
    pub fn secret(&self, tenant: &Tenant, path: &ResourcePath) -> Result<Option<Secret>, StoreError> {
        let (tenant, path) = (tenant.as_str(), path.as_str());
        let Some(head) = self.head(tenant, path)?.filter(|head| head.deleted_unix == 0) else {
            return Ok(None);
        };
        let row = self
            .transaction
            .query_row(
                "SELECT allow_simulated, policy, created_unix, salt, nonce, ciphertext FROM secret_versions
                 WHERE tenant = ?1 AND path = ?2 AND version = ?3",
                params![tenant, path, integer("version", head.version)?],
                |row| {
                    Ok(Secret {
                        version: head.version,
                        allow_simulated: row.get(0)?,
                        policy: row.get(1)?,
                        created_unix: row.get(2)?,
                        stored: StoredCiphertext { salt: row.get(3)?, nonce: row.get(4)?, ciphertext: row.get(5)? },
                    })
                },
            )
            .optional()?;
        row.map(Some).ok_or_else(|| StoreError::Tampered {
            what: format!("version {} of {path} of tenant {tenant}", head.version),
            source: crate::keys::KeyError::Ciphertext,
        })
    }

    /// Decrypts what [`Ledger::secret`] gave. Only now `allow_simulated` and `policy` are known to be the owner's.
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
        self.root.decrypt(context, &secret.stored).map_err(|source| StoreError::Tampered {
            what: format!("version {} of {path} of tenant {tenant}", secret.version),
            source,
        })
    }

    /// Marks a secret as deleted; its versions stay, and a later put goes on counting.
    ///
    /// # Errors
    /// As the store.
    pub fn delete_secret(&self, tenant: &Tenant, path: &ResourcePath, now_unix: i64) -> Result<bool, StoreError> {
        let (tenant, path) = (tenant.as_str(), path.as_str());
        match self.head(tenant, path)? {
            Some(head) if head.deleted_unix == 0 => {
                self.write_head(tenant, path, &Head { version: head.version, deleted_unix: now_unix.max(1) })?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Every secret of a tenant, by path, without values.
    ///
    /// # Errors
    /// As [`Ledger::secret`].
    pub fn secrets(&self, tenant: &Tenant) -> Result<Vec<SecretInfo>, StoreError> {
        let mut statement =
            self.transaction.prepare("SELECT path FROM secret_heads WHERE tenant = ?1 ORDER BY path")?;
        let paths: Vec<String> = statement.query_map([tenant.as_str()], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let mut found = Vec::new();
        for path in paths {
            let Ok(parsed) = path.parse::<ResourcePath>() else { continue };
            if let Some(secret) = self.secret(tenant, &parsed)? {
                let length = secret.stored.ciphertext.len().saturating_sub(TAG_LENGTH) as u64;
                found.push(SecretInfo { path, secret, length });
            }
        }
        Ok(found)
    }

    fn head(&self, tenant: &str, path: &str) -> Result<Option<Head>, StoreError> {
        let row = self
            .transaction
            .query_row(
                "SELECT version, deleted_unix, mac FROM secret_heads WHERE tenant = ?1 AND path = ?2",
                params![tenant, path],
                |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Vec<u8>>(2)?)),
            )
            .optional()?;
        let Some((version, deleted_unix, mac)) = row else {
            return Ok(None);
        };
        let head = Head { version: unsigned("version", version)?, deleted_unix };
        self.root
            .check_mac(
                RowKind::SecretHead,
                &head_fields(tenant, path, &head.version.to_be_bytes(), &deleted_unix.to_be_bytes()),
                &mac,
            )
            .map_err(|source| StoreError::Tampered { what: format!("head of {path} of tenant {tenant}"), source })?;
        Ok(Some(head))
    }

    fn write_head(&self, tenant: &str, path: &str, head: &Head) -> Result<(), StoreError> {
        let mac = self.root.mac(
            RowKind::SecretHead,
            &head_fields(tenant, path, &head.version.to_be_bytes(), &head.deleted_unix.to_be_bytes()),
        );
        self.transaction.execute(
            "INSERT OR REPLACE INTO secret_heads VALUES (?1, ?2, ?3, ?4, ?5)",
            params![tenant, path, integer("version", head.version)?, head.deleted_unix, mac],
        )?;
        Ok(())
    }
}

fn head_fields<'a>(tenant: &'a str, path: &'a str, version: &'a [u8; 8], deleted: &'a [u8; 8]) -> [&'a [u8]; 4] {
    [tenant.as_bytes(), path.as_bytes(), version, deleted]
}

const TAG_LENGTH: usize = 16;
