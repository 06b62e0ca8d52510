//! Sends a box's workload a signal.

use coffer_spec::Act;

use super::{Engine, Fault, Hint, How, OpenError, StopError};
use crate::state::BoxState;
use crate::{Class, Failure, agent};

/// Why a signal is not sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KillError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nothing of it runs.
    #[error("cannot kill box {0}: it is not running")]
    NotRunning(String),
    /// It does not end, or takes no such signal.
    #[error(transparent)]
    Stop(#[from] StopError),
    /// Its spec, or its agent.
    #[error(transparent)]
    Agent(#[from] Failure),
}

impl Fault for KillError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            // Docker's 1: there is no such running box.
            Self::NotRunning(_) => Class::NotFound,
            Self::Stop(error) => error.class(),
            Self::Agent(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::NotRunning(_) => Some(Hint::ListBoxes),
            Self::Stop(error) => error.hint(),
            Self::Agent(failure) => Fault::hint(failure),
        }
    }
}

/// Ends a box whatever its workload thinks of it.
const KILL: i32 = libc::SIGKILL;

impl Engine {
    /// Sends a signal to the workload of a box that runs. KILL ends the machine around it, which nothing inside can keep from
    /// happening, and returns when it has ended.
    ///
    /// # Errors
    /// [`KillError`].
    pub async fn kill(&self, word: &str, signal: i32) -> Result<(), KillError> {
        let record = self.find(word)?;
        if !record.state.is_up() {
            return Err(KillError::NotRunning(record.name));
        }
        if signal == KILL {
            self.stop(record.id.as_str(), How::Kill).await?;
            return Ok(());
        }
        match record.state {
            BoxState::Paused => return Err(StopError::Paused(record.name).into()),
            BoxState::Restarting => return Err(KillError::NotRunning(record.name)),
            _ => {}
        }
        if self.may_signal(&record, signal)? == Act::Stop {
            return Ok(self.signal_to_stop(&record, signal).await?);
        }
        let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
        Ok(agent::signal(&folder, signal).await?)
    }
}
