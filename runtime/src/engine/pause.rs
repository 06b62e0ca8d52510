//! Holds a box that runs, and lets it go on.

use super::{Engine, Fault, Hint, OpenError};
use crate::supervisor::control::{self, Command};
use crate::{BoxRecord, BoxState, Class, Failure};

/// Why a box is not paused, or does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PauseError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing of it runs that could be held.
    #[error("box {0} is not running")]
    NotRunning(String),
    /// It is held.
    #[error("box {0} is paused already")]
    Already(String),
    /// It is not held.
    #[error("box {0} is not paused")]
    NotPaused(String),
    /// Its supervisor does not bring it about.
    #[error(transparent)]
    Supervisor(#[from] Failure),
}

impl Fault for PauseError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::NotRunning(_) | Self::Already(_) | Self::NotPaused(_) => Class::Config,
            Self::Supervisor(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::NotRunning(name) => Some(Hint::StartBox { name: name.clone() }),
            Self::Already(name) => Some(Hint::UnpauseBox { name: name.clone() }),
            Self::NotPaused(_) => None,
            Self::Supervisor(failure) => Fault::hint(failure),
        }
    }
}

impl Engine {
    /// Lets no virtual processor of a box run, and returns when none does. Its memory stays; its clock goes on.
    ///
    /// # Errors
    /// [`PauseError`].
    pub async fn pause(&self, word: &str) -> Result<(), PauseError> {
        let record = self.find(word)?;
        match record.state {
            BoxState::Running => self.hold(&record, Command::Pause).await,
            BoxState::Paused => Err(PauseError::Already(record.name)),
            _ => Err(PauseError::NotRunning(record.name)),
        }
    }

    /// Lets a paused box go on.
    ///
    /// # Errors
    /// [`PauseError`].
    pub async fn unpause(&self, word: &str) -> Result<(), PauseError> {
        let record = self.find(word)?;
        match record.state {
            BoxState::Paused => self.hold(&record, Command::Resume).await,
            _ => Err(PauseError::NotPaused(record.name)),
        }
    }

    async fn hold(&self, record: &BoxRecord, command: Command) -> Result<(), PauseError> {
        let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
        Ok(control::ask(&folder, command).await?)
    }
}
