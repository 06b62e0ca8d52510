//! The broker's state: secrets, whom it admits, and the audit trail, so that one transaction covers a whole decision.
//!
//! Three layers. [`Rows`] keeps bytes that nobody believes ([`SqliteRows`] in one file, [`MemoryRows`] in tests); the ledger
//! above it makes them into state that this server wrote; the other files say what its rows mean, one kind a file.
//! Trusts: the root key. Believes no row before its MAC holds and the ledger knows it.
//! Never: returns a value that was not committed together with its audit line.

mod admins;
mod apart;
mod archive;
mod audit;
mod audit_search;
mod audit_words;
mod batch;
mod certificates;
mod checkpoint;
mod crl_numbers;
mod crls;
mod head;
mod inputs;
mod known;
mod ledger;
mod lost_lines;
mod manifests;
mod marker;
mod memory;
mod policies;
mod record;
mod references;
mod restored;
mod revocations;
mod rotated;
mod rows;
mod sealing;
mod secret_update;
mod secrets;
mod signers;
mod sqlite;
mod state;
mod tenant_keys;
mod terms;
mod traces;
mod upgrade;
mod view;

pub use admins::Admin;
pub(crate) use apart::drive;
pub use archive::{Archive, ArchiveFile};
pub use audit::{
    AuditEntry, AuditFault, AuditSummary, Claimed, Compared, GuestFacts, LogFault, Recorded, StateFault, TrailStart,
};
pub(crate) use audit::{BROKER, rfc3339};
pub use audit_search::{AuditFilter, AuditFound, AuditOrder};
pub use audit_words::{EVENTS, OUTCOMES, is_event_word};
pub use certificates::{CertificateProfile, TokenProfile};
pub use checkpoint::{
    CheckpointError, CheckpointKeeper, FileCheckpoint, MemoryCheckpoint, NotedCheckpoint, Position, Witness,
};
pub use crls::StoredCrl;
pub use inputs::{KEPT_INPUTS, KeptInput};
pub use ledger::{Ledger, Seen, Store};
pub use manifests::{ManifestKey, StoredManifest};
pub use memory::MemoryRows;
pub use policies::StoredPolicy;
pub use references::Reference;
pub use restored::{Accepted, Restored};
pub use revocations::{Revocation, Touching};
pub(crate) use rotated::opens;
pub use rows::{Intent, Kind, Row, Rows, RowsError, Traces, Transaction, Written};
pub use sealing::{Counter, KeptVolume, SealingContext};
pub use secret_update::SecretUpdate;
pub use secrets::{Absent, Described, Labels, NewSecret, Put, Secret, SecretInfo, Stated};
pub use signers::Signer;
pub use sqlite::{Opened, SqliteRows, Upgrade};
pub use state::{Fault, Forget, StateSummary};
pub use tenant_keys::{KeyUse, OpenKey};
pub(crate) use terms::rules_digest;

use coffer_verifier::Expiry;

use crate::keys::KeyError;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// What keeps the rows failed: disk full, file missing, another format.
    #[error(transparent)]
    Rows(#[from] RowsError),
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
    /// A least version that none has.
    #[error("minimum version {least} is above the current version, which is {current}")]
    Minimum {
        /// Asked for.
        least: u64,
        /// The version there.
        current: u64,
    },
    /// A new version would keep an expiry that lies in the past.
    #[error("version {version} expired at {at}, and a new version keeps its expiry where none is given")]
    Expired {
        /// The version there.
        version: u64,
        /// When.
        at: Expiry,
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
    /// A manifest with a higher number that dates a release anew which another has overtaken.
    #[error("manifest {name} dates release {found} anew, and release {newest} is there, which says something else")]
    OlderRelease {
        /// Its name.
        name: String,
        /// Release there.
        newest: u64,
        /// Release given.
        found: u64,
    },
    /// A manifest with a higher number that dates a release anew which was revoked.
    #[error("manifest {name} dates release {found} anew, which is revoked")]
    RevokedRelease {
        /// Its name.
        name: String,
        /// Release given.
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
    /// The end of the audit trail does not verify, so nothing can be appended.
    #[error("audit trail does not end as this server left it")]
    Audit(#[source] AuditFault),
    /// The record of changes does not verify, so no row can be told from an older one.
    #[error("the record of changes is not as this server left it")]
    State(#[from] StateFault),
    /// The checkpoint outside the database does not fit, or cannot be moved.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// What was asked for is committed, and the checkpoint has not moved.
    #[error("it is done, and its checkpoint could not be moved")]
    Unwitnessed(#[source] CheckpointError),
    /// Others changed what a decision rests on, again and again.
    #[error("no decision could be made: what it rests on was changed {attempts} times meanwhile")]
    Contended {
        /// How often it was tried.
        attempts: usize,
    },
    /// What was asked for is done, and not yet overwritten what it was to make unreadable.
    #[error("it is done, and bytes of what is gone still lie in the database's files")]
    Traces(#[source] RowsError),
    /// A number that does not fit its column.
    #[error("{what} is out of range")]
    Range {
        /// Which number.
        what: &'static str,
    },
}

impl StoreError {
    /// A task of ours did not end.
    pub(crate) fn interrupted(error: tokio::task::JoinError) -> Self {
        Self::Rows(RowsError::Failed(Box::new(error)))
    }

    /// True where the transaction was committed all the same.
    pub fn is_committed(&self) -> bool {
        matches!(self, Self::Unwitnessed(_))
    }

    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Rows(RowsError::Format { .. }) => "use the version of coffer-kbs that made this state folder",
            Self::Rows(RowsError::Old { .. }) => {
                "if no coffer-kbs of this version ever served this folder: `coffer-kbs upgrade --state DIR --accept-as-newest`; else somebody put an old database here: put the newer one back, or restore a backup"
            }
            Self::Rows(RowsError::Durability { .. }) => "put the state folder on a local file system",
            Self::Rows(RowsError::Schema { .. }) => {
                "find out who added it; then stop the server and drop it (`sqlite3 DIR/kbs.db`: each row proves itself all the same), or restore a backup you trust"
            }
            Self::Rows(RowsError::Malformed(_)) => {
                "stop the server, and restore a backup: `coffer-kbs restore --state DIR --from FILE --accept-rollback`, which keeps the damaged file as replaced-…"
            }
            Self::Rows(RowsError::Beneath { .. }) => {
                "nothing is released or changed until it is back; else stop the server, put the newest database there, and start again: an older one is refused by its checkpoint"
            }
            Self::Rows(RowsError::Full) => "nothing was changed: make room where the state folder lies, then ask again",
            Self::Rows(RowsError::Reserved { .. }) => {
                "make room where the state folder lies (`coffer-kbs audit archive` moves old lines away): until then guests get nothing, and operators go on"
            }
            Self::Rows(_) => "check free space and permissions of the state folder",
            Self::Tampered { .. } => {
                "`coffer-kbs state verify --state DIR` names all that is damaged: put the entry again, restore a backup you trust, or give it up with `coffer-kbs state repair`"
            }
            Self::Key(_) => "check that the system's random source works",
            Self::Version { found: 0, .. } => {
                "nothing is current there: leave --expected-version out, or give 0; a deleted secret comes back with `secret undelete`"
            }
            Self::Version { .. } => {
                "`secret get-meta` shows what is current: repeat with that in --expected-version, if it is still meant"
            }
            Self::Minimum { .. } => "give the current version at most; `secret remove` ends all of them",
            Self::Expired { .. } => "say until when the new one is released: --expires TIME, or --no-expires",
            Self::OlderManifest { .. } | Self::RevokedManifest { .. } | Self::SameSequence { .. } => {
                "sign a manifest with a higher --sequence"
            }
            Self::OlderRelease { .. } | Self::RevokedRelease { .. } => {
                "have the newest release endorsed; to go back on purpose its author signs what shall count as a new one"
            }
            Self::Checkpoint(error) => error.hint(),
            Self::Unwitnessed(_) => {
                "check free space and permissions where the checkpoint lies: nothing more is changed or released until it can be moved"
            }
            Self::Traces(RowsError::Full) => {
                "make room where the state folder lies: a server tries again by itself and says so in its log"
            }
            Self::Traces(_) => {
                "a server tries again by itself and says so in its log; else end what reads the database (a backup, `state verify`), and ask again"
            }
            Self::Contended { .. } => "ask again",
            Self::Audit(AuditFault::Head) | Self::State(StateFault::Beyond { .. }) => {
                "stop the server; `coffer-kbs state repair --state DIR` lists what would be given up, and with --give-up-what-is-damaged takes the end mark from the checkpoint; else restore a backup"
            }
            // The files are whole, and of an earlier moment: nothing but this process knows better.
            Self::State(StateFault::SetBack { .. }) => {
                "whoever did it put back the checkpoint too, perhaps: stop the server and put the newest database back, or a backup (`coffer-kbs restore`); `state verify` compares with the checkpoint alone, `audit verify --log` with what the server printed"
            }
            // A row and its entry are both lost: which rows counted cannot be told any more.
            Self::State(_) => {
                "which rows count cannot be told from what is left, so that nothing is served or repaired: put the newest database back, or restore a backup (`coffer-kbs restore --state DIR --from FILE --accept-rollback`)"
            }
            Self::Audit(_) => {
                "`coffer-kbs state verify --state DIR` names all that is damaged: restore a backup you trust, or give it up with `coffer-kbs state repair`"
            }
            Self::Range { .. } => "use a smaller number",
        }
    }
}

#[cfg(test)]
mod tests;
