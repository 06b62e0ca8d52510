//! Who keeps the root key: the one secret that everything at rest hangs from.
//!
//! A custody makes a root key once and gives it to the server that starts. [`FileCustody`] keeps it in a file of the state
//! folder; another kind (a token, a vault, a sealed file) is another file here and one more line where `state.rs` chooses.
//! Trusts: the custody, for the key itself. Believes nothing else it says.
//! Never: prints a key, keeps a second copy, makes a new key where one is missing.

mod file;

use std::{io, path::PathBuf};

pub use file::{FileCustody, NotPrivate, private_text};

use crate::{keys::RootKey, owner::NOT_MINE};

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CustodyError {
    /// Not read or written.
    #[error("{path}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{path} has mode {mode:04o}, expected 0600")]
    Mode {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something else lies there.
    #[error("{path} is not a root key of 64 hex digits")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// No randomness.
    #[error("the system gives no random bytes")]
    Random,
}

impl CustodyError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => NOT_MINE,
            Self::File { source, .. } if source.kind() != io::ErrorKind::NotFound => {
                "check the path, free space and permissions: the key that lies there stays"
            }
            Self::File { .. } => {
                "put your copy of root.key back, or make the folder anew from a backup: `coffer-kbs restore --recovery-key FILE`; a folder that is not there yet `coffer-kbs init --state DIR` makes"
            }
            Self::Mode { .. } => "chmod 600 the file, and make a new key if somebody may have read it",
            Self::Malformed { .. } => "restore root.key from your backup; without it the secrets are lost",
            Self::Random => "check that the system's random source works",
        }
    }
}

/// Keeps a root key.
#[tonic::async_trait]
pub trait Custody: Send + Sync {
    /// Makes a new key and keeps it. One that is there already is an error, and stays.
    ///
    /// # Errors
    /// [`CustodyError`].
    async fn create(&self) -> Result<RootKey, CustodyError>;

    /// The key that is kept.
    ///
    /// # Errors
    /// [`CustodyError`].
    async fn open(&self) -> Result<RootKey, CustodyError>;
}
