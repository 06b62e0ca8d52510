//! Removes a box: its record, its folder, its snapshots.

use std::path::PathBuf;

use super::{Engine, Fault, Hint, How, OpenError, StopError};
use crate::removal::remove_folder;
use crate::state::StateError;
use crate::volumes::Volumes;
use crate::{Class, Failure};

/// Why a box is not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It runs.
    #[error("box {0} is running")]
    Running(String),
    /// It does not end.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// Its folder stays.
    #[error("cannot remove {folder}", folder = .folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What it keeps stays, and with it its record.
    #[error(transparent)]
    Volumes(Failure),
    /// Its record stays.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Fault for RemoveError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Stop(error) => error.class(),
            Self::State(error) => error.class(),
            Self::Volumes(failure) => failure.class,
            Self::Running(_) | Self::Folder { .. } => Class::Config,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Running(_) => Some(Hint::StopFirst),
            Self::Stop(error) => error.hint(),
            Self::Volumes(failure) => Fault::hint(failure),
            _ => None,
        }
    }
}

impl Engine {
    /// Removes a box; with `kill`, one that runs as well, with `volumes`, what it keeps and nobody named.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub async fn remove(&self, word: &str, kill: bool, volumes: bool) -> Result<(), RemoveError> {
        let record = self.find(word)?;
        let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
        if self.is_busy(&record)? {
            if !kill {
                return Err(RemoveError::Running(word.into()));
            }
            self.stop(record.id.as_str(), How::Kill).await?;
        }
        if let Err(source) = remove_folder(&folder) {
            return Err(RemoveError::Folder { folder, source });
        }
        let state = self.state()?;
        if volumes || record.options.remove {
            let of_home = Volumes::at(self.home().map_err(OpenError::from)?.volumes());
            state.remove_anonymous(&of_home, &record).map_err(RemoveError::Volumes)?;
        }
        Ok(state.remove(&record.id)?)
    }
}
