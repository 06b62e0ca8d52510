//! Why the database of boxes does not answer, or has no such box.

use coffer_rim::failure::DISK_FULL;
use coffer_rim::{Class, Failure};

use super::schema::VERSION;
use crate::id::BoxId;
use crate::trail::TrailError;

/// Why the database does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// SQLite says no.
    #[error("box database")]
    Database(#[from] rusqlite::Error),
    /// What is done cannot be recorded, and so is not done.
    #[error(transparent)]
    Trail(#[from] TrailError),
    /// Two first uses cannot take turns.
    #[error("box database cannot be locked")]
    Lock(#[source] std::io::Error),
    /// A later version of ours made it.
    #[error("box database has version {found}, this program reads up to {VERSION}")]
    Newer {
        /// Its version.
        found: i64,
    },
    /// A record is not what we write.
    #[error("box database holds an unreadable {field} for {id}")]
    Record {
        /// Which box.
        id: String,
        /// Which column.
        field: &'static str,
    },
    /// The name is taken.
    #[error("the box name \"/{name}\" is already in use by box \"{holder}\"; remove that box to reuse the name")]
    NameInUse {
        /// Which name.
        name: String,
        /// Who has it.
        holder: BoxId,
    },
    /// No such box.
    #[error("no such box: {0}")]
    Unknown(String),
    /// More than one box.
    #[error("{prefix} is the beginning of {count} box ids")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many fit.
        count: usize,
    },
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let failure = Self::caused(error.class(), &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl StateError {
    /// What kind it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Unknown(_) => Class::NotFound,
            Self::Ambiguous { .. } => Class::Usage,
            _ => Class::Config,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            _ if self.is_disk_full() => Some(DISK_FULL.into()),
            Self::Trail(error) => error.hint(),
            Self::Ambiguous { .. } => Some("give more digits of the id".into()),
            Self::Newer { .. } => Some("use the version of coffer that made it, or another --home".into()),
            _ => None,
        }
    }

    /// SQLite found no room. It calls that an I/O error where it grows its shared memory (SQLITE_IOERR_SHMSIZE).
    fn is_disk_full(&self) -> bool {
        let Self::Database(error) = self else { return false };
        error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            || error.sqlite_error().is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    }
}

/// A database error as a failure.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err")]
pub fn of_state(error: StateError) -> Failure {
    error.into()
}
