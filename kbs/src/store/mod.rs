//! SQLite store: secrets, references and the audit trail in one file, so that one transaction covers a whole decision.
//!
//! Write-ahead log with `synchronous = FULL`: what was committed is on the disk before its caller hears of it.
//! Trusts: the root key. Believes no row before its MAC or tag holds.
//! Never: returns a value that was not committed together with its audit line.

mod audit;
mod manifests;
mod references;
mod secrets;
mod signers;

use std::{os::unix::fs::OpenOptionsExt as _, path::Path, sync::Mutex};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

pub use audit::{AuditEntry, AuditFault, AuditSummary, GuestFacts};
pub use manifests::{ManifestKey, StoredManifest};
pub use references::Reference;
pub use secrets::{NewSecret, Secret};
pub use signers::Signer;

use crate::keys::{KeyError, RootKey};

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// SQLite's own failure: disk full, file missing, locked.
    #[error("database failed")]
    Database(#[from] rusqlite::Error),
    /// The database file cannot be made.
    #[error("cannot make the database file")]
    File(#[source] std::io::Error),
    /// A row or ciphertext is not what this server wrote.
    #[error("{what} was changed behind the server's back")]
    Tampered {
        /// Which row.
        what: String,
        /// How it was noticed.
        #[source]
        source: KeyError,
    },
    /// The random source or a cipher failed on our own input.
    #[error("cannot protect a value")]
    Key(#[source] KeyError),
    /// Check-and-set did not find the version it expected.
    #[error("secret is at version {found}, expected {expected}")]
    Version {
        /// Version expected; 0: must not exist.
        expected: u64,
        /// Version there; 0: none.
        found: u64,
    },
    /// A manifest that an admitted one of its name has overtaken.
    #[error("manifest {name} is at sequence {newest}, found sequence {found}")]
    OlderManifest {
        /// Its name.
        name: String,
        /// Sequence there.
        newest: u64,
        /// Sequence given.
        found: u64,
    },
    /// A manifest of a sequence that was revoked.
    #[error("manifest {name} is revoked up to sequence {through}, found sequence {found}")]
    RevokedManifest {
        /// Its name.
        name: String,
        /// Last sequence revoked.
        through: u64,
        /// Sequence given.
        found: u64,
    },
    /// Two manifests with one number.
    #[error("manifest {name} has a sequence {sequence} already, and it says something else")]
    SameSequence {
        /// Its name.
        name: String,
        /// The number.
        sequence: u64,
    },
    /// Another program's file, or another version's.
    #[error("database has format {found}, this server reads {expected}")]
    Format {
        /// `user_version` found.
        found: i64,
        /// Ours.
        expected: i64,
    },
    /// A database that forgets or reorders commits is not served.
    #[error("database runs with {setting} {found}, expected {expected}")]
    Durability {
        /// Pragma.
        setting: &'static str,
        /// Value found.
        found: String,
        /// Value wanted.
        expected: &'static str,
    },
    /// The end of the audit trail does not verify, so nothing can be appended.
    #[error("audit trail does not end as this server left it")]
    Audit(#[source] AuditFault),
    /// A number that does not fit its column.
    #[error("{what} is out of range")]
    Range {
        /// Which number.
        what: &'static str,
    },
}

impl StoreError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Database(_) | Self::File(_) => "check free space and permissions of the state folder",
            Self::Tampered { .. } => "restore the database from a backup you trust, or put the entry again",
            Self::Key(_) => "check that the system's random source works",
            Self::Version { .. } => "list the secrets, then repeat with the current version in --expected-version",
            Self::OlderManifest { .. } | Self::RevokedManifest { .. } | Self::SameSequence { .. } => {
                "sign a manifest with a higher --sequence"
            }
            Self::Format { .. } => "use the version of coffer-kbs that made this state folder",
            Self::Durability { .. } => "put the state folder on a local file system",
            Self::Audit(_) => {
                "run `coffer-kbs audit verify --state DIR`, and restore the database from a backup you trust"
            }
            Self::Range { .. } => "use a smaller number",
        }
    }
}

/// The open store. One writer at a time.
pub struct Store {
    connection: Mutex<Connection>,
    root: RootKey,
}

/// One transaction's view. Everything done through it is committed together or not at all.
pub struct Ledger<'a> {
    transaction: &'a Connection,
    root: &'a RootKey,
}

impl Store {
    /// Makes a new database; fails if the file is there.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn create(path: &Path, root: RootKey) -> Result<Self, StoreError> {
        // SQLite gives its log files the mode of the database file.
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(StoreError::File)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        configure(&connection)?;
        connection.execute_batch(SCHEMA)?;
        connection.execute_batch(SCHEMA_2)?;
        connection.pragma_update(None, "user_version", FORMAT)?;
        let store = Self { connection: Mutex::new(connection), root };
        store.transact(|ledger| ledger.write_audit_head(&audit::Head::EMPTY))?;
        Ok(store)
    }

    /// Opens an existing database.
    ///
    /// # Errors
    /// [`StoreError::Format`], [`StoreError::Durability`], [`StoreError::Audit`] or [`StoreError::Database`].
    pub fn open(path: &Path, root: RootKey) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let found: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if ![FORMAT_1, FORMAT].contains(&found) {
            return Err(StoreError::Format { found, expected: FORMAT });
        }
        configure(&connection)?;
        let store = Self { connection: Mutex::new(connection), root };
        store.transact(|ledger| {
            // Nothing is changed in a file that is not this key's.
            ledger.audit_head()?;
            if found == FORMAT_1 {
                ledger.transaction.execute_batch(SCHEMA_2)?;
                ledger.transaction.pragma_update(None, "user_version", FORMAT)?;
            }
            Ok::<_, StoreError>(())
        })?;
        Ok(store)
    }

    /// Runs `work` in one transaction that holds the write lock from its start, and commits if it gives `Ok`.
    ///
    /// # Errors
    /// What `work` gives, or [`StoreError::Database`]: then nothing is known to be written, and nothing may leave.
    pub fn transact<T, E: From<StoreError>>(&self, work: impl FnOnce(&Ledger<'_>) -> Result<T, E>) -> Result<T, E> {
        // A panic in an earlier transaction rolled it back; the connection itself is whole.
        let mut connection = self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let result = work(&Ledger { transaction: &transaction, root: &self.root })?;
        transaction.commit().map_err(StoreError::from)?;
        Ok(result)
    }
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    connection.busy_timeout(core::time::Duration::from_secs(5))?;
    let journal: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if journal != "wal" {
        return Err(StoreError::Durability { setting: "journal_mode", found: journal, expected: "wal" });
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if synchronous != SYNCHRONOUS_FULL {
        let found = synchronous.to_string();
        return Err(StoreError::Durability { setting: "synchronous", found, expected: "2 (FULL)" });
    }
    connection.pragma_update(None, "foreign_keys", "ON")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    Ok(())
}

/// SQLite's INTEGER is signed; ours are counts and times that fit.
fn integer(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Range { what })
}

fn unsigned(what: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Range { what })
}

const SYNCHRONOUS_FULL: i64 = 2;
/// Format 1 has no signers and no manifests.
const FORMAT_1: i64 = 1;
const FORMAT: i64 = 2;
const SCHEMA: &str = "
CREATE TABLE secret_heads (
    tenant TEXT NOT NULL, path TEXT NOT NULL,
    version INTEGER NOT NULL, deleted_unix INTEGER NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (tenant, path)
) STRICT;
CREATE TABLE secret_versions (
    tenant TEXT NOT NULL, path TEXT NOT NULL, version INTEGER NOT NULL,
    allow_simulated INTEGER NOT NULL, policy TEXT NOT NULL, created_unix INTEGER NOT NULL,
    salt BLOB NOT NULL, nonce BLOB NOT NULL, ciphertext BLOB NOT NULL,
    PRIMARY KEY (tenant, path, version)
) STRICT;
CREATE TABLE reference_pairs (
    tenant TEXT NOT NULL, measurement BLOB NOT NULL, workload BLOB NOT NULL,
    name TEXT NOT NULL, expires_unix INTEGER NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (tenant, measurement, workload)
) STRICT;
CREATE TABLE audit_lines (
    sequence INTEGER PRIMARY KEY, line TEXT NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE TABLE audit_head (
    only INTEGER PRIMARY KEY CHECK (only = 1), sequence INTEGER NOT NULL, hash BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
";
const SCHEMA_2: &str = "
CREATE TABLE signers (
    tenant TEXT NOT NULL, name TEXT NOT NULL,
    author_key BLOB NOT NULL, family_id BLOB NOT NULL, image_id BLOB NOT NULL,
    minimum_guest_svn INTEGER NOT NULL, expires_unix INTEGER NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;
CREATE TABLE manifest_keys (
    tenant TEXT NOT NULL, spki_sha256 BLOB NOT NULL, name TEXT NOT NULL, public_key BLOB NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (tenant, spki_sha256)
) STRICT;
CREATE TABLE manifests (
    tenant TEXT NOT NULL, name TEXT NOT NULL, sequence INTEGER NOT NULL, revoked_through INTEGER NOT NULL,
    workload BLOB NOT NULL, envelope BLOB NOT NULL, added_unix INTEGER NOT NULL, mac BLOB NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT;
CREATE INDEX manifests_by_workload ON manifests (tenant, workload);
";

#[cfg(test)]
mod tests;
