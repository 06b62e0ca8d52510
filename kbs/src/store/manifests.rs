//! Manifest keys and signed reference manifests, each row under a MAC.
//!
//! One row per name holds the newest manifest and how far the name is revoked, so that neither an older manifest nor a
//! revoked one comes back with the same or a lower number. What a manifest admits is decided from its signed bytes at
//! each release, under the keys listed then.

use coffer_verifier::{
    P384PublicKey,
    abi::{SpkiDigest, WorkloadDigest},
    manifest::{SignedManifest, VerifiedManifest},
};
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Ledger, StoreError, integer, unsigned};
use crate::{
    keys::{KeyError, RowKind},
    tenant::Tenant,
};

/// A key whose manifests count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestKey {
    /// For people.
    pub name: String,
    /// The key.
    pub key: P384PublicKey,
}

/// A manifest as it came, and how far its name is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its name.
    pub name: String,
    /// Its number.
    pub sequence: u64,
    /// Last sequence revoked; 0: none.
    pub revoked_through: u64,
    /// The workload it is about.
    pub workload: WorkloadDigest,
    /// The signed document.
    pub envelope: Vec<u8>,
    /// When it was added, seconds since 1970.
    pub added_unix: i64,
}

impl StoredManifest {
    /// True if it was revoked.
    pub fn is_revoked(&self) -> bool {
        self.sequence <= self.revoked_through
    }

    /// Judges its signature under the keys listed now.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, keys: &[P384PublicKey]) -> Result<VerifiedManifest, String> {
        let signed = SignedManifest::parse(&self.envelope).map_err(|error| coffer_rim::chain(&error))?;
        signed.verify(keys).map_err(|error| coffer_rim::chain(&error))
    }
}

impl Ledger<'_> {
    /// Lists a key, or gives it a new name. True if it was not listed.
    ///
    /// # Errors
    /// As the store.
    pub fn add_manifest_key(&self, tenant: &Tenant, key: &ManifestKey) -> Result<bool, StoreError> {
        let (digest, der) = (key.key.spki_digest(), key.key.to_spki_der());
        let added = !self.remove_manifest_key(tenant, &digest)?;
        let mac = self.root.mac(RowKind::ManifestKey, &[tenant.as_str().as_bytes(), key.name.as_bytes(), &der]);
        self.transaction.execute(
            "INSERT INTO manifest_keys VALUES (?1, ?2, ?3, ?4, ?5)",
            params![tenant.as_str(), digest.as_bytes().as_slice(), key.name, der, mac],
        )?;
        Ok(added)
    }

    /// Takes a key from the list. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub fn remove_manifest_key(&self, tenant: &Tenant, key: &SpkiDigest) -> Result<bool, StoreError> {
        let changed = self.transaction.execute(
            "DELETE FROM manifest_keys WHERE tenant = ?1 AND spki_sha256 = ?2",
            params![tenant.as_str(), key.as_bytes().as_slice()],
        )?;
        Ok(changed > 0)
    }

    /// Every key of a tenant, with what is wrong with a row instead of a key where its MAC fails.
    ///
    /// # Errors
    /// As the store.
    pub fn manifest_keys(&self, tenant: &Tenant) -> Result<Vec<Result<ManifestKey, StoreError>>, StoreError> {
        let mut statement = self.transaction.prepare(
            "SELECT spki_sha256, name, public_key, mac FROM manifest_keys WHERE tenant = ?1 ORDER BY spki_sha256",
        )?;
        let mut rows = statement.query(params![tenant.as_str()])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (digest, name): (Vec<u8>, String) = (row.get(0)?, row.get(1)?);
            let (der, mac): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
            let what = format!("manifest key {} of tenant {tenant}", hex::encode(&digest));
            let fields = [tenant.as_str().as_bytes(), name.as_bytes(), &der];
            let believed = self.root.check_mac(RowKind::ManifestKey, &fields, &mac).is_ok();
            let key = P384PublicKey::from_spki_der(&der).ok().filter(|_| believed);
            found.push(
                key.map(|key| ManifestKey { name, key }).ok_or(StoreError::Tampered { what, source: KeyError::Mac }),
            );
        }
        Ok(found)
    }

    /// Stores a manifest in place of the one of its name. True if it was not there already.
    ///
    /// # Errors
    /// [`StoreError::RevokedManifest`], [`StoreError::OlderManifest`] or [`StoreError::SameSequence`]; then nothing changes.
    pub fn add_manifest(
        &self,
        tenant: &Tenant,
        envelope: &[u8],
        verified: &VerifiedManifest,
        now: i64,
    ) -> Result<bool, StoreError> {
        let contents = verified.manifest().contents();
        let (name, found) = (contents.name.clone(), contents.sequence);
        let before = self.manifest(tenant, &name)?;
        let mut added_unix = now;
        if let Some(before) = &before {
            if found <= before.revoked_through {
                return Err(StoreError::RevokedManifest { name, through: before.revoked_through, found });
            }
            if found < before.sequence {
                return Err(StoreError::OlderManifest { name, newest: before.sequence, found });
            }
            if found == before.sequence {
                let payload = |bytes| SignedManifest::parse(bytes).map(|signed| signed.payload().to_vec()).ok();
                if payload(&before.envelope) != payload(envelope) {
                    return Err(StoreError::SameSequence { name, sequence: found });
                }
                added_unix = before.added_unix;
            }
        }
        self.write_manifest(
            tenant,
            &StoredManifest {
                name,
                sequence: found,
                revoked_through: before.as_ref().map_or(0, |before| before.revoked_through),
                workload: contents.workload,
                envelope: envelope.to_vec(),
                added_unix,
            },
        )?;
        Ok(before.is_none_or(|before| before.sequence != found))
    }

    /// Revokes the manifest of a name, and with it every lower sequence; gives the last sequence revoked, or nothing if
    /// there is no manifest of that name.
    ///
    /// # Errors
    /// As the store.
    pub fn revoke_manifest(&self, tenant: &Tenant, name: &str) -> Result<Option<u64>, StoreError> {
        let Some(mut manifest) = self.manifest(tenant, name)? else { return Ok(None) };
        manifest.revoked_through = manifest.revoked_through.max(manifest.sequence);
        self.write_manifest(tenant, &manifest)?;
        Ok(Some(manifest.revoked_through))
    }

    /// Every manifest of a tenant, with what is wrong with a row instead of a manifest where its MAC fails.
    ///
    /// # Errors
    /// As the store.
    pub fn manifests(&self, tenant: &Tenant) -> Result<Vec<Result<StoredManifest, StoreError>>, StoreError> {
        let mut statement =
            self.transaction.prepare(&format!("SELECT {COLUMNS} FROM manifests WHERE tenant = ?1 ORDER BY name"))?;
        let rows = statement.query_map(params![tenant.as_str()], Fields::read)?;
        rows.map(|row| Ok(self.checked_manifest(tenant, row?))).collect()
    }

    /// The manifests about one workload.
    ///
    /// # Errors
    /// As the store.
    pub fn manifests_for(
        &self,
        tenant: &Tenant,
        workload: &WorkloadDigest,
    ) -> Result<Vec<Result<StoredManifest, StoreError>>, StoreError> {
        let mut statement = self
            .transaction
            .prepare(&format!("SELECT {COLUMNS} FROM manifests WHERE tenant = ?1 AND workload = ?2 ORDER BY name"))?;
        let rows = statement.query_map(params![tenant.as_str(), workload.as_bytes().as_slice()], Fields::read)?;
        rows.map(|row| Ok(self.checked_manifest(tenant, row?))).collect()
    }

    fn manifest(&self, tenant: &Tenant, name: &str) -> Result<Option<StoredManifest>, StoreError> {
        let row = self
            .transaction
            .query_row(
                &format!("SELECT {COLUMNS} FROM manifests WHERE tenant = ?1 AND name = ?2"),
                params![tenant.as_str(), name],
                Fields::read,
            )
            .optional()?;
        row.map(|row| self.checked_manifest(tenant, row)).transpose()
    }

    fn write_manifest(&self, tenant: &Tenant, manifest: &StoredManifest) -> Result<(), StoreError> {
        self.transaction.execute(
            "INSERT OR REPLACE INTO manifests VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                tenant.as_str(),
                manifest.name,
                integer("sequence", manifest.sequence)?,
                integer("sequence", manifest.revoked_through)?,
                manifest.workload.as_bytes().as_slice(),
                manifest.envelope,
                manifest.added_unix,
                self.mac_of(tenant, manifest)
            ],
        )?;
        Ok(())
    }

    fn mac_of(&self, tenant: &Tenant, manifest: &StoredManifest) -> [u8; 32] {
        let (sequence, revoked) = (manifest.sequence.to_be_bytes(), manifest.revoked_through.to_be_bytes());
        let added = manifest.added_unix.to_be_bytes();
        self.root.mac(RowKind::Manifest, &fields(tenant, manifest, &sequence, &revoked, &added))
    }

    fn checked_manifest(&self, tenant: &Tenant, row: Fields) -> Result<StoredManifest, StoreError> {
        let what = format!("manifest {} of tenant {tenant}", row.name);
        let tampered = |source| StoreError::Tampered { what: what.clone(), source };
        let workload = WorkloadDigest::try_from(row.workload.as_slice()).map_err(|_| tampered(KeyError::Mac))?;
        let manifest = StoredManifest {
            name: row.name,
            sequence: unsigned("sequence", row.sequence).map_err(|_| tampered(KeyError::Mac))?,
            revoked_through: unsigned("sequence", row.revoked_through).map_err(|_| tampered(KeyError::Mac))?,
            workload,
            envelope: row.envelope,
            added_unix: row.added_unix,
        };
        let (sequence, revoked) = (manifest.sequence.to_be_bytes(), manifest.revoked_through.to_be_bytes());
        let added = manifest.added_unix.to_be_bytes();
        self.root
            .check_mac(RowKind::Manifest, &fields(tenant, &manifest, &sequence, &revoked, &added), &row.mac)
            .map_err(tampered)?;
        Ok(manifest)
    }
}

const COLUMNS: &str = "name, sequence, revoked_through, workload, envelope, added_unix, mac";

/// A row as it lies there.
struct Fields {
    name: String,
    sequence: i64,
    revoked_through: i64,
    workload: Vec<u8>,
    envelope: Vec<u8>,
    added_unix: i64,
    mac: Vec<u8>,
}

impl Fields {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            name: row.get(0)?,
            sequence: row.get(1)?,
            revoked_through: row.get(2)?,
            workload: row.get(3)?,
            envelope: row.get(4)?,
            added_unix: row.get(5)?,
            mac: row.get(6)?,
        })
    }
}

fn fields<'a>(
    tenant: &'a Tenant,
    manifest: &'a StoredManifest,
    sequence: &'a [u8; 8],
    revoked_through: &'a [u8; 8],
    added_unix: &'a [u8; 8],
) -> [&'a [u8]; 7] {
    [
        tenant.as_str().as_bytes(),
        manifest.name.as_bytes(),
        sequence,
        revoked_through,
        manifest.workload.as_bytes(),
        &manifest.envelope,
        added_unix,
    ]
}
