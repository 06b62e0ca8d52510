//! The output of a box: from its log file where the host may read it, else from the guest, as its owner.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_guest_proto::control_client::ControlClient;
use coffer_guest_proto::{LogsRequest as Ask, LogsResponse, Stream};
use coffer_spec::Act;
use tonic::Streaming;

use super::prove::{Kept, OwnerMayNot, ProveError};
use super::window::{Tail, Window};
use super::{Engine, Fault, Hint, OpenError, Trust};
use crate::boxes::{LogLimits, files, unix_us};
use crate::lock::BoxLock;
use crate::state::{BoxRecord, BoxState};
use crate::supervisor::message::{Dropped, LogPiece};
use crate::supervisor::{former, part};
use crate::{Class, Failure, agent};

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

/// Output, piece by piece.
pub struct LogStream {
    kept: VecDeque<LogPiece>,
    rest: Rest,
    window: Window,
    dropped: u64,
}

/// Where what is still to come comes from.
enum Rest {
    Nothing,
    File(Follower),
    Guest {
        pieces: Box<Streaming<LogsResponse>>,
        /// Attestation is the state of a connection, so the connection outlives the call.
        kept: Box<Kept>,
    },
}

impl LogStream {
    /// How many bytes of the log are gone, because it has bounds.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next piece; nothing at the end.
    ///
    /// # Errors
    /// [`LogsError::Other`] if the guest's agent gives up.
    pub async fn next(&mut self) -> Result<Option<LogPiece>, LogsError> {
        loop {
            if let Some(piece) = self.kept.pop_front() {
                if self.window.is_over(piece.time) {
                    return Ok(None);
                }
                if self.window.admits(&piece) {
                    return Ok(Some(piece));
                }
                continue;
            }
            match &mut self.rest {
                Rest::Nothing => return Ok(None),
                Rest::Guest { pieces, kept } => match kept.unless_lapsed(next_chunk(pieces)).await?? {
                    Some(piece) => self.kept.push_back(piece),
                    None => return Ok(None),
                },
                Rest::File(follower) => {
                    // Asked first: what was written before the end is read after it.
                    let alive = BoxLock::is_held(&follower.folder);
                    self.kept.extend(follower.read());
                    let over = self.window.is_over(u64::try_from(unix_us()).unwrap_or(0).saturating_mul(1000));
                    if self.kept.is_empty() && (!alive || over) {
                        return Ok(None);
                    }
                    if self.kept.is_empty() {
                        tokio::time::sleep(INTERVAL).await;
                    }
                }
            }
        }
    }
}

const INTERVAL: Duration = Duration::from_millis(100);

impl Engine {
    /// The output of a box. `trust`: what its guest must prove where only its owner may read it.
    ///
    /// # Errors
    /// [`LogsError`].
    pub async fn logs(&self, word: &str, request: LogsRequest, trust: &Trust) -> Result<LogStream, LogsError> {
        let record = self.find(word)?;
        let document = self.document(&record)?;
        if document.spec().host_may.contains(Act::Logs) {
            let folder = self.home().map_err(OpenError::from)?.box_folder(&record.id);
            let path = folder.join(files::LOG);
            let Found { pieces, position, dropped } = read_all(&path, &request);
            let follower = Follower { folder, path, position };
            let rest = if request.follow { Rest::File(follower) } else { Rest::Nothing };
            return Ok(LogStream { kept: pieces, rest, window: request.window, dropped });
        }
        if !record.state.is_up() {
            return Err(LogsError::Gone(record.name));
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
        let mut connection = Kept::new(self.connect(&record, trust).await?);
        let mut control = ControlClient::new(connection.channel());
        let ask = Ask { follow: request.follow, from_sequence: 0 };
        let answer = control.logs(ask).await.map_err(|status| agent::of_status(&status))?;
        let mut pieces = Box::new(answer.into_inner());
        if request.follow {
            let rest = Rest::Guest { pieces, kept: Box::new(connection) };
            return Ok(LogStream { kept: VecDeque::new(), rest, window: request.window, dropped: 0 });
        }
        let mut kept = Tail::new(request.tail);
        while let Some(piece) = connection.unless_lapsed(next_chunk(&mut pieces)).await?? {
            if request.window.admits(&piece) {
                kept.push(piece);
            }
        }
        Ok(LogStream { kept: kept.into_pieces(), rest: Rest::Nothing, window: request.window, dropped: 0 })
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

async fn next_chunk(pieces: &mut Streaming<LogsResponse>) -> Result<Option<LogPiece>, Failure> {
    let chunk = pieces.message().await.map_err(|status| agent::of_status(&status))?;
    Ok(chunk.map(|it| LogPiece::new(it.stream == i32::from(Stream::Stderr), it.unix_nanos, it.data)))
}

/// What of a log file is wanted, and how far the file was read.
#[derive(Default)]
struct Found {
    pieces: VecDeque<LogPiece>,
    position: u64,
    dropped: u64,
}

/// The pieces of a log file that are wanted, those of its former parts first.
fn read_all(path: &Path, request: &LogsRequest) -> Found {
    let (mut kept, mut found) = (Tail::new(request.tail), Found::default());
    for number in (0..LogLimits::MOST_FILES).rev() {
        found.position = 0;
        let Ok(file) = std::fs::File::open(part(path, number)) else { continue };
        let noted = read_pieces(file, &mut found.position, |piece| {
            if request.window.admits(&piece) {
                kept.push(piece);
            }
        });
        found.dropped = found.dropped.max(noted);
    }
    Found { pieces: kept.into_pieces(), ..found }
}

/// Reads whole lines and counts their bytes; a line that is still being written is left for later. Gives what is noted to be gone.
fn read_pieces(file: std::fs::File, position: &mut u64, mut take: impl FnMut(LogPiece)) -> u64 {
    let mut reader = BufReader::new(file);
    let (mut line, mut dropped) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) && line.ends_with(b"\n") {
        *position += line.len() as u64;
        match serde_json::from_slice(&line) {
            Ok(piece) => take(piece),
            Err(_) => dropped = serde_json::from_slice::<Dropped>(&line).map_or(dropped, |noted| noted.dropped),
        }
        line.clear();
    }
    dropped
}

/// Reads what a log file grew by. A file that was started anew is read from its beginning.
struct Follower {
    folder: PathBuf,
    path: PathBuf,
    position: u64,
}

impl Follower {
    fn read(&mut self) -> Vec<LogPiece> {
        let mut pieces = Vec::new();
        let length = std::fs::metadata(&self.path).map_or(0, |found| found.len());
        if length < self.position {
            self.position = 0;
        }
        if length > self.position
            && let Ok(mut file) = std::fs::File::open(&self.path)
            && file.seek(SeekFrom::Start(self.position)).is_ok()
        {
            read_pieces(file, &mut self.position, |piece| pieces.push(piece));
        }
        pieces
    }
}
