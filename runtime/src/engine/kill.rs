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
    /// Its workload hears nothing until it goes on.
    #[error("box {0} is paused")]
    Paused(String),
    /// Its spec leaves the host the end and no more.
    #[error("the spec of {name} lets its host stop it, and send no other signal than that takes (host-may-not:{act})")]
    HostMayNot {
        /// Which box.
        name: String,
        /// What the host would have to be let do.
        act: Act,
    },
    /// It does not end.
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
            Self::Paused(_) => Class::Config,
            Self::HostMayNot { .. } => Class::Refused,
            Self::Stop(error) => error.class(),
            Self::Agent(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::NotRunning(_) => Some(Hint::ListBoxes),
            Self::Paused(name) => Some(Hint::UnpauseBox { name: name.clone() }),
            Self::HostMayNot { .. } => Some(Hint::KillOrStop),
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
            BoxState::Paused => return Err(KillError::Paused(record.name)),
            BoxState::Restarting => return Err(KillError::NotRunning(record.name)),
            _ => {}
        }
        let document = self.document(&record)?;
        let act = Act::of_signal(signal, document.spec().process.stop_signal);
        if !document.spec().host_may.allows(act) {
            return Err(KillError::HostMayNot { name: record.name, act });
        }
        let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
        if act != Act::Stop {
            return Ok(agent::signal(&folder, signal).await?);
        }
        // Before it is sent: its supervisor may see its end sooner than we the answer.
        self.state()?.about_to_signal(&record.id).map_err(OpenError::from)?;
        let sent = agent::signal(&folder, signal).await;
        self.state()?.signalled(&record.id, sent.is_ok()).map_err(OpenError::from)?;
        Ok(sent?)
    }
}
