//! Authors whose signed launches are admitted, each row under a MAC.

use coffer_verifier::{
    SignerRule,
    abi::{FamilyId, ImageId, KeyDigest},
};
use rusqlite::{OptionalExtension as _, params};

use super::{Ledger, StoreError};
use crate::{
    keys::{KeyError, RowKind},
    tenant::Tenant,
};

/// One rule of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// Its name; one rule per name.
    pub name: String,
    /// Who must have signed, under which names, from which version on.
    pub rule: SignerRule,
    /// Seconds since 1970 from which it admits nothing; 0: never.
    pub expires_unix: i64,
}

impl Signer {
    /// True while it admits.
    pub fn is_current(&self, now: i64) -> bool {
        self.expires_unix == 0 || self.expires_unix > now
    }
}

impl Ledger<'_> {
    /// Adds a rule, or replaces the one of its name. True if there was none.
    ///
    /// # Errors
    /// As the store.
    pub fn add_signer(&self, tenant: &Tenant, signer: &Signer) -> Result<bool, StoreError> {
        let Signer { name, rule, expires_unix } = signer;
        let found: Option<i64> = self
            .transaction
            .query_row("SELECT 1 FROM signers WHERE tenant = ?1 AND name = ?2", params![tenant.as_str(), name], |row| {
                row.get(0)
            })
            .optional()?;
        self.transaction.execute(
            "INSERT OR REPLACE INTO signers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                tenant.as_str(),
                name,
                rule.author_key.as_bytes().as_slice(),
                rule.family_id.as_bytes().as_slice(),
                rule.image_id.as_bytes().as_slice(),
                rule.minimum_guest_svn,
                expires_unix,
                self.root.mac(RowKind::Signer, &slices(&fields(tenant, signer)))
            ],
        )?;
        Ok(found.is_none())
    }

    /// Removes a rule. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub fn remove_signer(&self, tenant: &Tenant, name: &str) -> Result<bool, StoreError> {
        let changed = self
            .transaction
            .execute("DELETE FROM signers WHERE tenant = ?1 AND name = ?2", params![tenant.as_str(), name])?;
        Ok(changed > 0)
    }

    /// Every rule of a tenant, with what is wrong with a row instead of a rule where its MAC fails.
    ///
    /// # Errors
    /// As the store.
    pub fn signers(&self, tenant: &Tenant) -> Result<Vec<Result<Signer, StoreError>>, StoreError> {
        let mut statement = self.transaction.prepare(
            "SELECT name, author_key, family_id, image_id, minimum_guest_svn, expires_unix, mac
             FROM signers WHERE tenant = ?1 ORDER BY name",
        )?;
        let mut rows = statement.query(params![tenant.as_str()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            let (author_key, family_id, image_id): (Vec<u8>, Vec<u8>, Vec<u8>) =
                (row.get(1)?, row.get(2)?, row.get(3)?);
            let (minimum, expires_unix, mac): (i64, i64, Vec<u8>) = (row.get(4)?, row.get(5)?, row.get(6)?);
            let what = format!("signer {name} of tenant {tenant}");
            let parsed = || {
                let rule = SignerRule {
                    author_key: KeyDigest::try_from(author_key.as_slice()).ok()?,
                    family_id: FamilyId::try_from(family_id.as_slice()).ok()?,
                    image_id: ImageId::try_from(image_id.as_slice()).ok()?,
                    minimum_guest_svn: u32::try_from(minimum).ok()?,
                };
                let signer = Signer { name, rule, expires_unix };
                self.root.check_mac(RowKind::Signer, &slices(&fields(tenant, &signer)), &mac).ok()?;
                Some(signer)
            };
            found.push(parsed().ok_or(StoreError::Tampered { what, source: KeyError::Mac }));
        }
        Ok(found)
    }
}

fn fields(tenant: &Tenant, signer: &Signer) -> [Vec<u8>; 7] {
    let Signer { name, rule, expires_unix } = signer;
    [
        tenant.as_str().into(),
        name.as_bytes().into(),
        rule.author_key.as_bytes().into(),
        rule.family_id.as_bytes().into(),
        rule.image_id.as_bytes().into(),
        rule.minimum_guest_svn.to_be_bytes().into(),
        expires_unix.to_be_bytes().into(),
    ]
}

fn slices(fields: &[Vec<u8>; 7]) -> [&[u8]; 7] {
    fields.each_ref().map(Vec::as_slice)
}
