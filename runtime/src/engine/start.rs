//! Starts a box that is recorded and does not run.

use coffer_rim::Reason;
use coffer_spec::Scratch;

use super::{Engine, Fault, Hint, Live, LiveError, OpenError};
use crate::boxes::Timings;
use crate::launch::{can_run, fits, same_form};

use crate::monitor::{self, Isolation};
use crate::state::{BoxRecord, BoxState};
use crate::{Class, Failure};

/// A box after it was asked to start.
#[derive(Debug)]
pub enum Started {
    /// It runs already and is left alone.
    AlreadyRunning(Box<BoxRecord>),
    /// It is on its way; it lives as long as this is held, or on its own once this is let go of.
    Live(Box<Live>),
}

/// Why a box does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What isolates the box does not work here (a program is missing, say), or would measure it as another.
    #[error(transparent)]
    Monitor(Failure),
    /// It runs, and is held.
    #[error("box {0} is paused: it goes on, and is not started")]
    Paused(String),
    /// It was started and gave up.
    #[error(transparent)]
    Live(#[from] LiveError),
}

impl Fault for StartError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Monitor(failure) => failure.class(),
            Self::Paused(_) => Class::Config,
            Self::Live(error) => error.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Monitor(failure) => Fault::hint(failure),
            Self::Paused(name) => Some(Hint::UnpauseBox { name: name.clone() }),
            Self::Live(error) => error.hint(),
        }
    }

    fn docker_code(&self) -> Option<u8> {
        match self {
            Self::Live(error) => error.docker_code(),
            _ => None,
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Live(error) => error.reason(),
            _ => None,
        }
    }
}

impl Engine {
    /// Starts a box by name, id or beginning of an id, under another isolation where one is named. Such a word is
    /// recorded: later starts are under it, too.
    ///
    /// # Errors
    /// [`StartError`].
    #[allow(clippy::unused_async, reason = "needs the event loop its supervisor is read on")]
    pub async fn start(&self, word: &str, isolation: Option<Isolation>) -> Result<Started, StartError> {
        let mut record = self.find(word)?;
        match record.state {
            BoxState::Running | BoxState::Restarting => return Ok(Started::AlreadyRunning(Box::new(record))),
            BoxState::Paused => return Err(StartError::Paused(record.name)),
            _ => {}
        }
        let isolation = isolation.unwrap_or(record.options.isolation);
        same_form(&record.options, isolation).map_err(StartError::Monitor)?;
        let scratch = match record.options.scratch_bytes {
            0 => Scratch::Tmpfs { bytes: 0 },
            bytes => Scratch::Disk { bytes },
        };
        fits(isolation, scratch, record.options.id_block, &record.options.limits).map_err(StartError::Monitor)?;
        let monitor = monitor::of(isolation, &self.settings().search);
        monitor.and_then(|monitor| can_run(monitor.as_ref(), record.options.tee)).map_err(StartError::Monitor)?;
        if record.options.isolation != isolation {
            record.options.isolation = isolation;
            self.state()?.set_isolation(&record.id, isolation).map_err(OpenError::from)?;
        }
        self.state()?.by_hand(&record.id, false).map_err(OpenError::from)?;
        record.timings = Timings::start();
        Ok(Started::Live(Box::new(Live::start(self, record)?)))
    }

    /// Starts a box just created; its phases go on counting from the creation's beginning.
    ///
    /// # Errors
    /// [`LiveError`].
    #[allow(clippy::unused_async, reason = "needs the event loop its supervisor is read on")]
    pub async fn start_created(&self, record: BoxRecord) -> Result<Live, LiveError> {
        Live::start(self, record)
    }
}
