//! Stays with a box that was started: its phases, its output, its end.
//!
//! Whoever holds a [`Live`] keeps the box running: when it is dropped, or its process dies, the box is stopped, unless it was
//! let go of with [`Live::detach`].

use std::time::{Duration, Instant};

use coffer_rim::Reason;

use super::{Engine, Fault, Hint};
use crate::attach::Attached;
use crate::boxes::{Timings, files, last_line};
use crate::state::BoxRecord;
use crate::supervisor::control::{self, Command};
use crate::supervisor::message::{Ended, LogPiece, Message};
use crate::{Class, Failure};

/// A box that was started, from there to its end.
#[derive(Debug)]
pub struct Live {
    engine: Engine,
    record: BoxRecord,
    timings: Timings,
    supervisor: Option<Attached>,
    /// What it said last, while it ends.
    last: Option<Last>,
}

#[derive(Debug)]
enum Last {
    Exited(Ended),
    Failed(Failure),
    Nothing,
}

/// What happened to a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It reached a phase; its fixed word.
    Phase(String),
    /// The workload wrote.
    Output(LogPiece),
    /// So many bytes of its output, before what follows, are nowhere: they came faster than they were read.
    Lost(u64),
    /// The workload ended. Nothing follows.
    Exited(Ended),
}

/// How a wait for a running workload ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It runs.
    Running,
    /// It ran and has ended already.
    Exited(Ended),
}

/// Why a box that was started gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    /// The supervisor or its guest says why.
    #[error(transparent)]
    Failed(Failure),
    /// The supervisor is gone without a word to us.
    #[error("supervisor died; the box was stopped with it{}", said(.last_words.as_deref()))]
    SupervisorDied {
        /// The last line of its log, read before the box's record was mended. Foreign text.
        last_words: Option<String>,
    },
    /// The supervisor does not start, or could not be let go of.
    #[error(transparent)]
    Supervisor(Failure),
}

fn said(last_words: Option<&str>) -> String {
    last_words.map_or_else(String::new, |words| format!("; it last said {words:?}"))
}

impl Fault for LiveError {
    fn class(&self) -> Class {
        match self {
            Self::Failed(failure) | Self::Supervisor(failure) => failure.class(),
            Self::SupervisorDied { .. } => Class::Internal,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Failed(failure) | Self::Supervisor(failure) => failure.hint.clone().map(Hint::Words),
            Self::SupervisorDied { .. } => None,
        }
    }

    fn docker_code(&self) -> Option<u8> {
        match self {
            Self::Failed(failure) | Self::Supervisor(failure) => failure.docker_code(),
            Self::SupervisorDied { .. } => None,
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Failed(failure) | Self::Supervisor(failure) => failure.reason(),
            Self::SupervisorDied { .. } => None,
        }
    }
}

impl Live {
    pub(super) fn start(engine: &Engine, record: BoxRecord) -> Result<Self, LiveError> {
        let home = engine.home().map_err(|error| LiveError::Supervisor(Failure::caused(Class::Config, &error)))?;
        let (exe, origin) = (&engine.settings().supervisor, record.timings.origin_unix_us);
        let supervisor = Attached::start(exe, home, &record.id, origin).map_err(LiveError::Supervisor)?;
        let timings = record.timings.clone();
        Ok(Self { engine: engine.clone(), record, timings, supervisor: Some(supervisor), last: None })
    }

    /// The box as it was recorded before its start.
    pub fn record(&self) -> &BoxRecord {
        &self.record
    }

    /// What the start took so far.
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// The next thing that happens; nothing after the end. Nothing is lost where the future is dropped.
    ///
    /// # Errors
    /// [`LiveError`]; nothing follows it either.
    pub async fn next(&mut self) -> Result<Option<Happening>, LiveError> {
        if self.last.is_none() {
            let Some(supervisor) = &mut self.supervisor else { return Ok(None) };
            match supervisor.next().await {
                Some(Message::Phase(step)) => {
                    let phase = step.phase.clone();
                    self.timings.steps.push(step);
                    return Ok(Some(Happening::Phase(phase)));
                }
                Some(Message::Log(piece)) => return Ok(Some(Happening::Output(piece))),
                Some(Message::Lost(bytes)) => return Ok(Some(Happening::Lost(bytes))),
                Some(Message::Exited(ended)) => self.last = Some(Last::Exited(ended)),
                // It lives on without us, by its policy.
                Some(Message::Restarting(ended)) => {
                    if let Some(supervisor) = self.supervisor.take() {
                        let _ = supervisor.detach();
                    }
                    return Ok(Some(Happening::Exited(ended)));
                }
                Some(Message::Failed(failure)) => self.last = Some(Last::Failed(failure)),
                None => self.last = Some(Last::Nothing),
            }
        }
        if let Some(supervisor) = &mut self.supervisor {
            supervisor.finished().await;
            self.supervisor = None;
        }
        match self.last.take() {
            Some(Last::Exited(ended)) => Ok(Some(Happening::Exited(ended))),
            Some(Last::Failed(failure)) => Err(LiveError::Failed(failure)),
            Some(Last::Nothing) | None => {
                let folder = self.engine.home().ok().map(|home| home.box_folder(&self.record.id));
                let last_words = folder.and_then(|folder| last_line(&folder.join(files::SUPERVISOR_LOG)));
                // It may have been killed: mend its record, so that what we say and what a list says agree.
                let _ = self.engine.mend();
                Err(LiveError::SupervisorDied { last_words })
            }
        }
    }

    /// Waits until the workload runs. Its output up to then is dropped here; it lies in the box's log.
    ///
    /// # Errors
    /// [`LiveError`] if it never runs.
    pub async fn until_running(&mut self) -> Result<Wait, LiveError> {
        loop {
            match self.next().await? {
                Some(Happening::Phase(phase)) if phase == RUNNING => return Ok(Wait::Running),
                Some(Happening::Exited(ended)) => return Ok(Wait::Exited(ended)),
                Some(_) => {}
                None => return Err(LiveError::SupervisorDied { last_words: None }),
            }
        }
    }

    /// Lets the box live on without us.
    ///
    /// # Errors
    /// [`LiveError::Supervisor`] if it has ended.
    pub fn detach(mut self) -> Result<(), LiveError> {
        match self.supervisor.take() {
            Some(supervisor) => supervisor.detach().map_err(LiveError::Supervisor),
            None => Ok(()),
        }
    }

    /// Asks the box to end; the end comes as what happens next. A supervisor that is only just being started is waited for.
    ///
    /// # Errors
    /// The socket's, if its supervisor takes no commands.
    pub async fn ask(&mut self, command: Command) -> std::io::Result<()> {
        let folder = self.engine.home().map_err(std::io::Error::other)?.box_folder(&self.record.id);
        let late = Instant::now() + LISTENS;
        loop {
            let sent = control::send(&folder, command).await;
            let is_gone = self.supervisor.as_mut().is_none_or(Attached::is_gone);
            if sent.is_ok() || is_gone || Instant::now() >= late {
                return sent;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How long a supervisor may take to listen.
const LISTENS: Duration = Duration::from_secs(20);

/// The phase in which the workload runs.
pub const RUNNING: &str = "running";
