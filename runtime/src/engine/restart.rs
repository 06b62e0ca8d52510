//! Stops a box and starts it again.

use coffer_rim::Reason;

use super::{Engine, Fault, Hint, How, StartError, Started, StopError};
use crate::Class;

/// Why a box does not restart.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestartError {
    /// It does not stop.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// It stopped and does not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Fault for RestartError {
    fn class(&self) -> Class {
        match self {
            Self::Stop(error) => error.class(),
            Self::Start(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Stop(error) => error.hint(),
            Self::Start(error) => error.hint(),
        }
    }

    fn docker_code(&self) -> Option<u8> {
        match self {
            Self::Stop(_) => None,
            Self::Start(error) => error.docker_code(),
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Stop(_) => None,
            Self::Start(error) => error.reason(),
        }
    }
}

impl Engine {
    /// Stops a box that runs, and starts it.
    ///
    /// # Errors
    /// [`RestartError`].
    pub async fn restart(&self, word: &str, how: How) -> Result<Started, RestartError> {
        self.stop(word, how).await?;
        Ok(self.start(word, None).await?)
    }
}
