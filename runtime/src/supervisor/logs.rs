//! The workload's output on its way from the guest to the box's log file and to the command that is attached.

use std::io;
use std::path::Path;

use coffer_guest_proto::{LogsRequest, Stream};

use super::message::{LogLine, LogPiece, Message, Reporter};
use crate::agent;
use crate::bounded::{BoundedLog, part};
use crate::boxes::{LogLimits, files};

/// Follows the output to its end.
pub async fn follow(folder: &Path, limits: LogLimits, reporter: Reporter) {
    if let Err(error) = try_follow(folder, limits, &reporter).await {
        tracing::warn!(error, "the workload's output is no longer read");
    }
}

async fn try_follow(folder: &Path, limits: LogLimits, reporter: &Reporter) -> Result<(), String> {
    let path = folder.join(files::LOG);
    let opening = tokio::task::spawn_blocking(move || Store::open(&path, limits));
    let mut store = opening.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
    let mut control = agent::control(folder).await.map_err(|e| e.to_string())?;
    let request = LogsRequest { follow: true, from_sequence: 0 };
    let mut pieces = control.logs(request).await.map_err(|e| e.to_string())?.into_inner();
    let mut full = false;
    while let Some(piece) = pieces.message().await.map_err(|e| e.to_string())? {
        let lost = piece.lost;
        let piece = LogPiece::new(piece.stream == i32::from(Stream::Stderr), piece.unix_nanos, piece.data);
        match store.add(&piece, lost) {
            Ok(()) => full = false,
            // A full disk must not stop the workload; said once, until it goes again.
            Err(error) if !full => {
                tracing::warn!(%error, "output is not stored");
                full = true;
            }
            Err(_) => {}
        }
        if lost > 0 {
            reporter.send(Message::Lost(lost)).await;
        }
        reporter.send(Message::Log(piece)).await;
    }
    Ok(())
}

/// The log file. Where something of the output is not in front of what follows, its place is noted: in each part that takes another's
/// place, and behind what was never stored.
#[derive(Debug)]
pub(crate) struct Store {
    file: BoundedLog,
    /// Bytes of the program's so far, stored or not.
    before: u64,
    /// What follows is not where it would be counted to.
    note: bool,
    /// The file may end in half a line.
    torn: bool,
}

impl Store {
    /// Opens it at its end. Reads back to where its place was noted last, a part at most.
    ///
    /// # Errors
    /// As `open(2)`.
    pub(crate) fn open(path: &Path, limits: LogLimits) -> io::Result<Self> {
        let before = written(path)?;
        let file = BoundedLog::open_parts(path, limits.max_bytes, limits.files)?;
        Ok(Self { file, before, note: false, torn: false })
    }

    /// Adds a piece; `lost`: bytes that came before it and are nowhere.
    ///
    /// # Errors
    /// As `write(2)`. The piece is counted all the same.
    pub(crate) fn add(&mut self, piece: &LogPiece, lost: u64) -> io::Result<()> {
        self.before = self.before.saturating_add(lost);
        self.note |= lost > 0;
        let added = self.try_add(piece);
        self.before = self.before.saturating_add(piece.len());
        if added.is_err() {
            (self.note, self.torn) = (true, true);
        }
        added
    }

    fn try_add(&mut self, piece: &LogPiece) -> io::Result<()> {
        let mut line = LogLine::Piece(piece.clone()).line();
        let note = LogLine::Before(self.before).line();
        if self.file.make_room(line.len() + note.len() + 1)? {
            (self.note, self.torn) = (true, false);
        }
        if self.note {
            line = [if self.torn { &b"\n"[..] } else { b"" }, &note, &line].concat();
        }
        self.file.write(&line)?;
        (self.note, self.torn) = (false, false);
        Ok(())
    }
}

/// Bytes of the program's up to the end of a log, as far as they were counted.
fn written(path: &Path) -> io::Result<u64> {
    let mut behind = 0;
    for number in 0..LogLimits::MOST_FILES {
        let file = match std::fs::File::open(part(path, number)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        let (mut noted, mut since) = (None, 0);
        for line in io::BufRead::split(io::BufReader::new(file), b'\n') {
            match LogLine::read(&line?) {
                Some(LogLine::Piece(piece)) => since += piece.len(),
                Some(LogLine::Before(before)) => (noted, since) = (Some(before), 0),
                None => {}
            }
        }
        behind += since;
        if let Some(before) = noted {
            return Ok(before.saturating_add(behind));
        }
    }
    Ok(behind)
}
