//! Admitted (measurement, workload) pairs, each row under a MAC.

use coffer_verifier::abi::{Measurement, WorkloadDigest};
use rusqlite::{OptionalExtension as _, params};

use super::{Ledger, StoreError};
use crate::{keys::RowKind, tenant::Tenant};

/// One admitted pair of a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Launch digest of the platform with this workload's digest on its command line.
    pub measurement: Measurement,
    /// Digest of the workload spec.
    pub workload: WorkloadDigest,
    /// For people.
    pub name: String,
    /// Seconds since 1970 from which it admits nothing; 0: never.
    pub expires_unix: i64,
}

impl Ledger<'_> {
    /// Adds a pair, or gives it a new name and expiry. True if it was not there.
    ///
    /// # Errors
    /// As the store.
    pub fn add_reference(&self, tenant: &Tenant, reference: &Reference) -> Result<bool, StoreError> {
        let added = !self.has_reference(tenant, &reference.measurement, &reference.workload)?;
        let mac = self.root.mac(RowKind::Reference, &fields(tenant, reference, &reference.expires_unix.to_be_bytes()));
        self.transaction.execute(
            "INSERT OR REPLACE INTO reference_pairs VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                tenant.as_str(),
                reference.measurement.as_bytes().as_slice(),
                reference.workload.as_bytes().as_slice(),
                reference.name,
                reference.expires_unix,
                mac
            ],
        )?;
        Ok(added)
    }

    /// Removes a pair. True if it was there.
    ///
    /// # Errors
    /// As the store.
    pub fn remove_reference(
        &self,
        tenant: &Tenant,
        measurement: &Measurement,
        workload: &WorkloadDigest,
    ) -> Result<bool, StoreError> {
        let changed = self.transaction.execute(
            "DELETE FROM reference_pairs WHERE tenant = ?1 AND measurement = ?2 AND workload = ?3",
            params![tenant.as_str(), measurement.as_bytes().as_slice(), workload.as_bytes().as_slice()],
        )?;
        Ok(changed > 0)
    }

    /// Every pair of a tenant, with what is wrong with a row instead of a pair where its MAC fails.
    ///
    /// # Errors
    /// As the store.
    pub fn references(&self, tenant: &Tenant) -> Result<Vec<Result<Reference, StoreError>>, StoreError> {
        self.query(tenant, "TRUE", &[])
    }

    /// The pairs that share the measurement or the workload: those that admit, and those that explain a refusal.
    ///
    /// # Errors
    /// As the store.
    pub fn references_near(
        &self,
        tenant: &Tenant,
        measurement: &Measurement,
        workload: &WorkloadDigest,
    ) -> Result<Vec<Result<Reference, StoreError>>, StoreError> {
        let near = [measurement.as_bytes().as_slice(), workload.as_bytes().as_slice()];
        // Exact pairs first: the limit only ever cuts explanations.
        self.query(
            tenant,
            "(measurement = ?2 OR workload = ?3) ORDER BY (measurement = ?2 AND workload = ?3) DESC LIMIT 32",
            &near,
        )
    }

    fn has_reference(
        &self,
        tenant: &Tenant,
        measurement: &Measurement,
        workload: &WorkloadDigest,
    ) -> Result<bool, StoreError> {
        let found: Option<i64> = self
            .transaction
            .query_row(
                "SELECT 1 FROM reference_pairs WHERE tenant = ?1 AND measurement = ?2 AND workload = ?3",
                params![tenant.as_str(), measurement.as_bytes().as_slice(), workload.as_bytes().as_slice()],
                |row| row.get(0),
            )
            .optional()?;
        Ok(found.is_some())
    }

    fn query(
        &self,
        tenant: &Tenant,
        condition: &str,
        arguments: &[&[u8]],
    ) -> Result<Vec<Result<Reference, StoreError>>, StoreError> {
        let sql = format!(
            "SELECT measurement, workload, name, expires_unix, mac FROM reference_pairs WHERE tenant = ?1 AND {condition}"
        );
        let mut statement = self.transaction.prepare(&sql)?;
        let tenant_name = tenant.as_str();
        let mut values: Vec<&dyn rusqlite::ToSql> = vec![&tenant_name];
        for argument in arguments {
            values.push(argument);
        }
        let mut rows = statement.query(values.as_slice())?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (measurement, workload): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
            let (name, expires_unix, mac): (String, i64, Vec<u8>) = (row.get(2)?, row.get(3)?, row.get(4)?);
            found.push(self.checked(tenant, &measurement, &workload, name, expires_unix, &mac));
        }
        Ok(found)
    }

    fn checked(
        &self,
        tenant: &Tenant,
        measurement: &[u8],
        workload: &[u8],
        name: String,
        expires_unix: i64,
        mac: &[u8],
    ) -> Result<Reference, StoreError> {
        let tampered = |source| StoreError::Tampered {
            what: format!("reference of measurement {} of tenant {tenant}", hex::encode(measurement)),
            source,
        };
        let (Ok(measurement), Ok(workload)) = (Measurement::try_from(measurement), WorkloadDigest::try_from(workload))
        else {
            return Err(tampered(crate::keys::KeyError::Mac));
        };
        let reference = Reference { measurement, workload, name, expires_unix };
        self.root
            .check_mac(RowKind::Reference, &fields(tenant, &reference, &expires_unix.to_be_bytes()), mac)
            .map_err(tampered)?;
        Ok(reference)
    }
}

fn fields<'a>(tenant: &'a Tenant, reference: &'a Reference, expires: &'a [u8; 8]) -> [&'a [u8]; 5] {
    [
        tenant.as_str().as_bytes(),
        reference.measurement.as_bytes(),
        reference.workload.as_bytes(),
        reference.name.as_bytes(),
        expires,
    ]
}
