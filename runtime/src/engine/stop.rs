//! Stops a box and waits for its end.

use super::{Engine, Fault, Hint, OpenError};
use crate::supervisor::control::{self, Command};
use crate::{Class, Failure};

/// How a box is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Asked to end, and ended after so many seconds if it does not.
    Grace(u32),
    /// The same, after as many as the box was made with.
    Own,
    /// At once.
    Kill,
}

/// Why a box does not stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its supervisor does not bring it about in time.
    #[error(transparent)]
    Supervisor(#[from] Failure),
}

impl Fault for StopError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Supervisor(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Supervisor(failure) => Fault::hint(failure),
        }
    }
}

impl Engine {
    /// Stops a box and waits until nothing of its run is left. One that is just being started or already ending is waited
    /// for as well; one that does not run is stopped already. Gives what went wrong with its end, where its record stays to say so.
    ///
    /// # Errors
    /// [`StopError`].
    pub async fn stop(&self, word: &str, how: How) -> Result<Option<String>, StopError> {
        let record = self.find(word)?;
        // Before it is asked: whatever comes between, its policy does not start it again.
        self.state()?.by_hand(&record.id, true).map_err(OpenError::from)?;
        let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
        let command = match how {
            How::Grace(grace) => Command::Stop(grace),
            How::Own => Command::Stop(record.options.grace()),
            How::Kill => Command::Kill,
        };
        control::end(&folder, command).await?;
        let ended = self.state()?.box_of(&record.id).ok().filter(|ended| ended.finished != record.finished);
        Ok(ended.and_then(|ended| ended.error))
    }
}
