//! The seam below the ledger: rows that somebody else keeps. Nobody believes them.
//!
//! A row is named by kind and key, and is bytes. A store of rows begins transactions, and commits each wholly or not at all.
//! Trusts: nothing; the ledger above checks every row it is given.
//! Never: sees a key, a type or a rule of ours.

use std::error::Error;

/// What a row is about. Each kind has keys and MACs of its own: a row of one kind never passes for one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Current version and deletion mark of a secret.
    SecretHead,
    /// One version of a secret, encrypted, with its permissions.
    SecretVersion,
    /// An admitted (measurement, workload) pair.
    Reference,
    /// An author whose signed launches are admitted.
    Signer,
    /// A key whose reference manifests count.
    ManifestKey,
    /// A reference manifest, and how far its name is revoked.
    Manifest,
    /// Which manifests are about a workload.
    ManifestWorkload,
    /// The highest number of a revocation list that was believed.
    CrlNumber,
    /// A revocation list that an operator brought.
    Crl,
    /// That somebody accepted an older state by name, and whether an owner has confirmed it.
    Restored,
    /// On what terms keys and generations of a sealing context are released.
    SealingContext,
    /// How far a counter has come.
    Generation,
    /// What certificates of one name say, and on what terms they are issued.
    CertificateProfile,
    /// A release policy of a tenant.
    Policy,
    /// A key of a tenant, encrypted: what its sealing keys are derived from, or what signs its certificates.
    TenantKey,
    /// An operator, and what it may.
    Admin,
    /// That there is a tenant.
    Tenant,
    /// What counts no more, for a tenant or for all.
    Revocation,
    /// Which lines of the audit trail were moved into a file, and what they end with.
    AuditArchive,
    /// Where audit trail and state end.
    Head,
    /// A line of the audit trail.
    AuditLine,
    /// What a policy saw of a decision.
    DecisionInput,
    /// One change of one row: what the ledger knows its keys from.
    StateEntry,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::SecretHead,
        Self::SecretVersion,
        Self::Reference,
        Self::Signer,
        Self::ManifestKey,
        Self::Manifest,
        Self::ManifestWorkload,
        Self::CrlNumber,
        Self::Crl,
        Self::Restored,
        Self::SealingContext,
        Self::Generation,
        Self::CertificateProfile,
        Self::Policy,
        Self::TenantKey,
        Self::Admin,
        Self::Tenant,
        Self::Revocation,
        Self::AuditArchive,
        Self::Head,
        Self::AuditLine,
        Self::DecisionInput,
        Self::StateEntry,
    ];

    /// Its name in a store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SecretHead => "secret-head",
            Self::SecretVersion => "secret-version",
            Self::Reference => "reference",
            Self::Signer => "signer",
            Self::ManifestKey => "manifest-key",
            Self::Manifest => "manifest",
            Self::ManifestWorkload => "manifest-workload",
            Self::CrlNumber => "crl-number",
            Self::Crl => "crl",
            Self::Restored => "restored",
            Self::SealingContext => "sealing-context",
            Self::Generation => "generation",
            Self::CertificateProfile => "certificate-profile",
            Self::Policy => "policy",
            Self::TenantKey => "tenant-key",
            Self::Admin => "admin",
            Self::Tenant => "tenant",
            Self::Revocation => "revocation",
            Self::AuditArchive => "audit-archive",
            Self::Head => "head",
            Self::AuditLine => "audit-line",
            Self::DecisionInput => "decision-input",
            Self::StateEntry => "state-entry",
        }
    }

    /// True for rows that the ledger answers for; the others are the ledger's own, or decide nothing.
    pub const fn decides(self) -> bool {
        !matches!(self, Self::Head | Self::AuditLine | Self::DecisionInput | Self::StateEntry)
    }

    /// From its name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What lies under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The ledger's encoding of it.
    pub body: Vec<u8>,
    /// The ledger's MAC over kind, key and body.
    pub mac: Vec<u8>,
}

/// What comes to lie under a key, or that nothing does.
pub type Written = (Kind, Vec<u8>, Option<Row>);

/// What a transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// One view of everything as of its first look; writes nothing, and waits for no writer.
    Read,
    /// Holds the one write lock from its start.
    Write,
}

/// What of rows that are gone is taken from the files they lay in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Traces {
    /// What a log of changes holds of them.
    Log,
    /// That, and what lies where no row is: the rows are written anew.
    Everywhere,
}

/// Why a store of rows did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowsError {
    /// The store's own failure: disk full, file missing, connection lost.
    #[error("database failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The file is no database, or parts of it are not as a database has them.
    #[error("the database file is damaged")]
    Malformed(#[source] Box<dyn Error + Send + Sync>),
    /// There is no room left.
    #[error("the disk that holds the database is full")]
    Full,
    /// The open files lie at their path no more: what is written there would be lost.
    #[error("{} was {how} while it was open", path.display())]
    Beneath {
        /// Which file.
        path: std::path::PathBuf,
        /// What became of it.
        how: &'static str,
    },
    /// There is room, and no more than is kept for those who revoke and mend.
    #[error("the disk of the database has {} KiB left, of which {} are kept for operators", left >> 10, kept >> 10)]
    Reserved {
        /// Bytes left.
        left: u64,
        /// Bytes kept.
        kept: u64,
    },
    /// Somebody reads, so that what is gone cannot be overwritten.
    #[error("somebody reads the database, and holds its log")]
    Held,
    /// The database file cannot be made.
    #[error("cannot make the database file")]
    File(#[source] std::io::Error),
    /// Another program's file, or another version's.
    #[error("database has format {found}, this server reads {expected}")]
    Format {
        /// Format found.
        found: i64,
        /// Ours.
        expected: i64,
    },
    /// An older format of ours, which only somebody's word brings up to date.
    #[error("the database has format {found}, of an earlier version")]
    Old {
        /// Format found.
        found: i64,
    },
    /// A database that forgets or reorders commits is not served.
    #[error("database runs with {setting} {found}, expected {expected}")]
    Durability {
        /// Which setting.
        setting: &'static str,
        /// Value found.
        found: String,
        /// Value wanted.
        expected: &'static str,
    },
    /// Its place holds more than rows: something that could act on its own.
    #[error("database holds {what}, which this server did not make")]
    Schema {
        /// Type and name.
        what: String,
    },
}

/// Keeps rows.
#[tonic::async_trait]
pub trait Rows: Send + Sync {
    /// Begins a transaction. Dropped without [`Transaction::commit`], it changed nothing.
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError>;
    /// The same, with the first row that is asked for: one trip where the rows lie far away.
    async fn begin_with(
        &self,
        intent: Intent,
        kind: Kind,
        key: &[u8],
    ) -> Result<(Box<dyn Transaction>, Option<Row>), RowsError> {
        let mut transaction = self.begin(intent).await?;
        let row = transaction.get(kind, key).await?;
        Ok((transaction, row))
    }
    /// That what keeps the rows is still where it was. Memory does not go away.
    fn are_there(&self) -> Result<(), RowsError> {
        Ok(())
    }
    /// That there is room beyond what is kept for operators: asked before a guest's question is decided, so that no guest fills the disk
    /// on which its own revocation must be recorded. Memory has room.
    fn leave_reserve(&self) -> Result<(), RowsError> {
        Ok(())
    }
    /// Overwrites what the files hold of rows that are gone. There is nothing to do where they hold the rows and nothing else.
    async fn overwrite(&self, traces: Traces) -> Result<(), RowsError> {
        let _ = traces;
        Ok(())
    }
}

/// One transaction.
#[tonic::async_trait]
pub trait Transaction: Send {
    /// The row under a key.
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError>;
    /// Puts a row under a key, in place of one that may be there.
    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError>;
    /// Removes a row, if it is there.
    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError>;
    /// Rows of a kind whose keys are `from` or higher, byte by byte, lowest first, at most `limit`.
    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError>;
    /// Puts rows, and removes those where there is none, in order.
    async fn write(&mut self, rows: Vec<Written>) -> Result<(), RowsError> {
        for (kind, key, row) in rows {
            match row {
                Some(row) => self.put(kind, &key, row).await?,
                None => self.remove(kind, &key).await?,
            }
        }
        Ok(())
    }
    /// Makes all of it last. After an error it may or may not have happened.
    async fn commit(self: Box<Self>) -> Result<(), RowsError>;
    /// The last rows, and all of it lasts: one trip where the rows lie far away.
    async fn commit_with(mut self: Box<Self>, rows: Vec<Written>) -> Result<(), RowsError> {
        self.write(rows).await?;
        self.commit().await
    }
}
