//! The output of a box: from its log file where the host may read it, else from the guest, as its owner.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use coffer_guest_proto::control_client::ControlClient;
use coffer_guest_proto::{LogsRequest as Ask, LogsResponse, Stream};
use coffer_spec::Act;
use tonic::Streaming;

use super::guest::Guest;
use super::log_file::LogFile;
use super::prove::{Kept, OwnerMayNot, ProveError};
use super::window::{Tail, Window};
use super::{Engine, Fault, Hint, OpenError, Trust};
use crate::boxes::{files, unix_us};
use crate::lock::BoxLock;
use crate::state::{BoxRecord, BoxState};
use crate::supervisor::former;
use crate::supervisor::message::LogPiece;
use crate::{Class, Failure, agent};
use coffer_rim::Classify as _;

/// Which output is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogsRequest {
    /// What was written when; by the guest's clock.
    pub window: Window,
    /// Most lines from the end of that; without a number, all.
    pub tail: Option<usize>,
    /// Stay, and give what comes.
    pub follow: bool,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogsError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Only the guest had it.
    #[error("the spec of {0} does not let the host read its output, and the guest that had it is gone")]
    Gone(String),
    /// Neither host nor owner may.
    #[error(transparent)]
    MayNot(#[from] OwnerMayNot),
    /// The guest did not prove itself.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// The box's spec, or its guest's agent.
    #[error(transparent)]
    Other(#[from] Failure),
}

impl Fault for LogsError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Gone(_) => Class::Refused,
            Self::MayNot(error) => error.class(),
            Self::Prove(error) => error.class(),
            Self::Other(failure) => failure.class(),
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Gone(_) => None,
            Self::MayNot(error) => error.hint(),
            Self::Prove(error) => error.hint(),
            Self::Other(failure) => Fault::hint(failure),
        }
    }
}

/// Output, piece by piece. No more of it is held than a piece, or the lines that were asked for from its end.
pub struct LogStream {
    kept: VecDeque<LogPiece>,
    rest: Rest,
    window: Window,
    dropped: u64,
}

/// Where what is still to come comes from.
enum Rest {
    Nothing,
    File {
        log: LogFile,
        /// The box, whose end is the output's, for whoever stays.
        follows: Option<PathBuf>,
    },
    Guest {
        pieces: Box<Streaming<LogsResponse>>,
        /// Attestation is the state of a connection, so the connection outlives the call.
        kept: Box<Kept>,
    },
}

impl LogStream {
    /// How many bytes of the output are gone before what was given so far, because what is kept of it has bounds.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next piece; nothing at the end.
    ///
    /// # Errors
    /// [`LogsError::Other`] if the guest's agent gives up, or the file cannot be read.
    pub async fn next(&mut self) -> Result<Option<LogPiece>, LogsError> {
        loop {
            let next = match self.kept.pop_front() {
                Some(piece) => Some(piece),
                None => self.read().await?,
            };
            match next {
                None => return Ok(None),
                Some(piece) if self.window.is_over(piece.time) => return Ok(None),
                Some(piece) if self.window.admits(&piece) => return Ok(Some(piece)),
                Some(_) => {}
            }
        }
    }

    async fn read(&mut self) -> Result<Option<LogPiece>, LogsError> {
        match &mut self.rest {
            Rest::Nothing => Ok(None),
            Rest::Guest { pieces, kept } => {
                let Some((piece, lost)) = kept.unless_lapsed(next_chunk(pieces)).await?? else { return Ok(None) };
                self.dropped = self.dropped.saturating_add(lost);
                Ok(Some(piece))
            }
            Rest::File { log, follows } => loop {
                // Asked first: what was written before the end is read after it.
                let mut ends = follows.is_none();
                let mut next = log.next().class_while(Class::Config, UNREADABLE)?;
                if let (None, Some(folder)) = (&next, &follows) {
                    ends = !BoxLock::is_held(folder)
                        || self.window.is_over(u64::try_from(unix_us()).unwrap_or(0).saturating_mul(1000));
                    next = log.next().class_while(Class::Config, UNREADABLE)?;
                }
                if next.is_some() || ends {
                    self.dropped = self.dropped.saturating_add(log.lost());
                    return Ok(next);
                }
                tokio::time::sleep(INTERVAL).await;
            },
        }
    }
}

const UNREADABLE: &str = "cannot read the box's log";
const INTERVAL: Duration = Duration::from_millis(100);

impl Engine {
    /// The output of a box. `trust`: what its guest must prove where only its owner may read it.
    ///
    /// # Errors
    /// [`LogsError`].
    pub async fn logs(&self, word: &str, request: LogsRequest, trust: &Trust) -> Result<LogStream, LogsError> {
        let record = match self.guest(word)? {
            Guest::Here(record) => record,
            guest @ Guest::Elsewhere(_) => return self.logs_of(&guest, request, trust).await,
        };
        let document = self.document(&record)?;
        if document.spec().host_may.contains(Act::Logs) {
            let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
            let log = LogFile::open(&folder.join(files::LOG));
            let rest = Rest::File { log, follows: request.follow.then_some(folder) };
            let all = LogStream { kept: VecDeque::new(), rest, window: request.window, dropped: 0 };
            return all.tail(request.tail);
        }
        if !record.state.is_up() {
            return Err(LogsError::Gone(record.name));
        }
        if record.state == BoxState::Paused {
            // It would not answer, for as long as that takes.
            return Err(ProveError::Paused(record.name).into());
        }
        self.logs_as_owner(&record, request, trust).await
    }

    /// The output of a box that its caller has just started, as its owner: its record may not say yet that it runs.
    ///
    /// # Errors
    /// [`LogsError`].
    pub async fn logs_as_owner(
        &self,
        record: &BoxRecord,
        request: LogsRequest,
        trust: &Trust,
    ) -> Result<LogStream, LogsError> {
        let document = self.document(record)?;
        self.owner_listed(&document, &record.name, Act::Logs)?;
        let record = BoxRecord { state: BoxState::Running, ..record.clone() };
        self.logs_of(&Guest::Here(Box::new(record)), request, trust).await
    }

    async fn logs_of(&self, guest: &Guest, request: LogsRequest, trust: &Trust) -> Result<LogStream, LogsError> {
        let mut connection = Kept::new(self.connect(guest, trust).await?);
        let mut control = ControlClient::new(connection.channel());
        let ask = Ask { follow: request.follow, from_sequence: 0 };
        let answer = control.logs(ask).await.map_err(|status| agent::of_status(&status))?;
        let mut pieces = Box::new(answer.into_inner());
        if request.follow || request.tail.is_none() {
            let rest = Rest::Guest { pieces, kept: Box::new(connection) };
            return Ok(LogStream { kept: VecDeque::new(), rest, window: request.window, dropped: 0 });
        }
        let (mut kept, mut dropped) = (Tail::new(request.tail), 0_u64);
        while let Some((piece, lost)) = connection.unless_lapsed(next_chunk(&mut pieces)).await?? {
            dropped = dropped.saturating_add(lost);
            if request.window.admits(&piece) {
                kept.push(piece);
            }
        }
        Ok(LogStream { kept: kept.into_pieces(), rest: Rest::Nothing, window: request.window, dropped })
    }

    /// What the guest's serial line said, former part first. The guest wrote it: it is not fit for a terminal.
    ///
    /// # Errors
    /// [`OpenError`] if there is no such box.
    pub fn console(&self, word: &str) -> Result<Vec<u8>, OpenError> {
        let record = self.find(word)?;
        let path = self.home()?.box_folder(&record.id).join(files::CONSOLE);
        let mut text = std::fs::read(former(&path)).unwrap_or_default();
        text.extend(std::fs::read(path).unwrap_or_default());
        Ok(text)
    }
}

/// A piece, and how many bytes are gone before it.
async fn next_chunk(pieces: &mut Streaming<LogsResponse>) -> Result<Option<(LogPiece, u64)>, Failure> {
    let chunk = pieces.message().await.map_err(|status| agent::of_status(&status))?;
    Ok(chunk.map(|it| (LogPiece::new(it.stream == i32::from(Stream::Stderr), it.unix_nanos, it.data), it.lost)))
}

impl LogStream {
    /// Only the last lines of what there is; what comes later is behind them.
    fn tail(mut self, most: Option<usize>) -> Result<Self, LogsError> {
        let (Some(_), Rest::File { log, .. }) = (most, &mut self.rest) else { return Ok(self) };
        let mut kept = Tail::new(most);
        while let Some(piece) = log.next().class_while(Class::Config, UNREADABLE)? {
            if self.window.admits(&piece) {
                kept.push(piece);
            }
        }
        self.dropped = self.dropped.saturating_add(log.lost());
        self.kept = kept.into_pieces();
        Ok(self)
    }
}
