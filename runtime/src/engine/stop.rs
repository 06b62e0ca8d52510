//! Stops a box and waits for its end.

use std::path::Path;
use std::time::Duration;

use coffer_spec::Act;
use tokio::time::{Instant, sleep};

use super::{Engine, Fault, Hint, OpenError};
use crate::lock::BoxLock;
use crate::state::{BoxRecord, BoxState};
use crate::supervisor::control::{self, Command};
use crate::{Class, Failure, agent};

/// How a box is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Asked to end, and ended after so many seconds if it does not.
    Grace(u32),
    /// The same, after as many as the box was made with.
    Own,
    /// Sent this signal in place of its stop signal, and ended after so many seconds, or as many as it was made with, if it does not end.
    Signal {
        /// Its number.
        number: i32,
        /// Seconds.
        grace: Option<u32>,
    },
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
    /// Its spec leaves the host the end and no more.
    #[error("the spec of {name} lets its host stop it, and send no other signal than that takes (host-may-not:{act})")]
    HostMayNot {
        /// Which box.
        name: String,
        /// What the host would have to be let do.
        act: Act,
        /// Number of the signal.
        signal: i32,
    },
    /// Its workload hears no signal until it goes on.
    #[error("box {0} is paused")]
    Paused(String),
    /// Its supervisor does not bring it about in time, or its agent does not take the signal.
    #[error(transparent)]
    Supervisor(#[from] Failure),
}

impl Fault for StopError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::HostMayNot { .. } => Class::Refused,
            Self::Paused(_) => Class::Config,
            Self::Supervisor(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::HostMayNot { name, act: Act::Exec, signal } => {
                Some(Hint::SignalInside { name: name.clone(), signal: *signal })
            }
            Self::HostMayNot { .. } => Some(Hint::KillOrStop),
            Self::Paused(name) => Some(Hint::UnpauseBox { name: name.clone() }),
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
        let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
        let own = record.options.grace();
        let command = match how {
            How::Signal { number: libc::SIGKILL, .. } | How::Kill => Command::Kill,
            How::Signal { number, grace } if self.is_another_signal(&record, number)? => {
                self.signal_to_stop(&record, number).await?;
                ended(&folder, grace.unwrap_or(own)).await;
                // Of one that has ended there is nothing to end.
                Command::Kill
            }
            How::Grace(grace) | How::Signal { grace: Some(grace), .. } => Command::Stop(grace),
            How::Own | How::Signal { grace: None, .. } => Command::Stop(own),
        };
        // Before it is asked: whatever comes between, its policy does not start it again.
        self.state()?.by_hand(&record.id, true).map_err(OpenError::from)?;
        control::end(&folder, command).await?;
        let ended = self.state()?.box_of(&record.id).ok().filter(|ended| ended.finished != record.finished);
        Ok(ended.and_then(|ended| ended.error))
    }

    /// Whether it is none that a stop would send to a workload that runs.
    fn is_another_signal(&self, record: &BoxRecord, number: i32) -> Result<bool, StopError> {
        match record.state {
            BoxState::Running => Ok(self.may_signal(record, number)? != Act::Stop),
            BoxState::Paused => Err(StopError::Paused(record.name.clone())),
            // Its workload is not there to hear it.
            _ => Ok(false),
        }
    }

    /// What it takes to send a workload this signal, which its spec lets its host do.
    pub(super) fn may_signal(&self, record: &BoxRecord, number: i32) -> Result<Act, StopError> {
        let document = self.document(record)?;
        let act = Act::of_signal(number, document.spec().process.stop_signal);
        let may = document.spec().host_may.allows(act);
        may.then_some(act).ok_or_else(|| StopError::HostMayNot { name: record.name.clone(), act, signal: number })
    }

    /// Sends a signal after which nobody wants the box to run.
    pub(super) async fn signal_to_stop(&self, record: &BoxRecord, number: i32) -> Result<(), StopError> {
        let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
        // Before it is sent: its supervisor may see its end sooner than we the answer.
        self.state()?.about_to_signal(&record.id).map_err(OpenError::from)?;
        let sent = agent::signal(&folder, number).await;
        self.state()?.signalled(&record.id, sent.is_ok()).map_err(OpenError::from)?;
        Ok(sent?)
    }
}

/// Waits for the end of a box, so many seconds at most.
async fn ended(folder: &Path, grace: u32) {
    let late = Instant::now() + Duration::from_secs(u64::from(grace));
    while BoxLock::is_held(folder) && Instant::now() < late {
        sleep(Duration::from_millis(10)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_the_host_may_not_send_is_sent_by_an_owner_from_inside() {
        let of = |act| StopError::HostMayNot { name: "demo".into(), act, signal: 1 }.hint().unwrap();
        assert_eq!(of(Act::Exec), Hint::SignalInside { name: "demo".into(), signal: 1 });
        assert_eq!(of(Act::Stop), Hint::KillOrStop);
    }
}
