//! The parts of a box's log, read as one: oldest first, to the end that there is now, and on from there as it grows and is started anew.
//!
//! A part is held open from before it is read until its end was read, so that what is renamed, or removed, meanwhile is read all the same.
//! Never: holds more of it in memory than a line, or leaves out what is gone without counting it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::bounded::part;
use crate::boxes::LogLimits;
use crate::supervisor::message::{LogLine, LogPiece};

/// More than a line takes: 16 KiB of output, in base64 or escaped, and what stands around it. What is longer is none of ours.
const LONGEST: u64 = 1 << 20;

/// A log that is read.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    /// Those that are not read to their end, oldest first. Only the last can grow.
    parts: VecDeque<Part>,
    /// Bytes of the program's before what is read next.
    at: u64,
    lost: u64,
}

#[derive(Debug)]
struct Part {
    /// Device and number of its file: its name changes.
    id: (u64, u64),
    lines: BufReader<File>,
    /// The line that is being read, or written.
    line: Vec<u8>,
}

impl LogFile {
    /// From its beginning. There need be no file yet.
    pub fn open(path: &Path) -> Self {
        let mut log = Self { path: path.to_path_buf(), parts: VecDeque::new(), at: 0, lost: 0 };
        log.look_again();
        log
    }

    /// The next piece; nothing where there is none yet.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn next(&mut self) -> io::Result<Option<LogPiece>> {
        loop {
            let Some(part) = self.parts.front_mut() else {
                if self.look_again() {
                    continue;
                }
                return Ok(None);
            };
            if part.has_line()? {
                let line = LogLine::read(&part.line);
                part.line.clear();
                match line {
                    Some(LogLine::Piece(piece)) => {
                        self.at = self.at.saturating_add(piece.len());
                        return Ok(Some(piece));
                    }
                    Some(LogLine::Before(before)) => {
                        self.lost = self.lost.saturating_add(before.saturating_sub(self.at));
                        self.at = self.at.max(before);
                    }
                    None => {}
                }
            } else if self.parts.len() > 1 {
                self.parts.pop_front();
            } else if !self.look_again() {
                return Ok(None);
            }
            // What a part got between our look at its end and the next one's beginning is read first.
        }
    }

    /// Bytes of the program's that are gone before the piece that was given last, since this was asked last.
    pub fn lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// Opens what was begun after the last part that is held. True if there is something.
    fn look_again(&mut self) -> bool {
        let last = self.parts.back().map(|part| part.id);
        let mut newer: Vec<Part> = Vec::new();
        // Newest first: what is renamed meanwhile is met once more, and not missed.
        for number in 0..LogLimits::MOST_FILES {
            let Ok(found) = Part::open(&part(&self.path, number)) else { continue };
            if Some(found.id) == last {
                break;
            }
            if newer.last().is_none_or(|met| met.id != found.id) {
                newer.push(found);
            }
        }
        let any = !newer.is_empty();
        self.parts.extend(newer.into_iter().rev());
        any
    }
}

impl Part {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let found = file.metadata()?;
        Ok(Self { id: (found.dev(), found.ino()), lines: BufReader::new(file), line: Vec::new() })
    }

    /// Reads on; false where the line has no end yet.
    fn has_line(&mut self) -> io::Result<bool> {
        loop {
            let room = (LONGEST + 1).saturating_sub(self.line.len() as u64);
            let count = (&mut self.lines).take(room).read_until(b'\n', &mut self.line)?;
            if self.line.ends_with(b"\n") {
                return Ok(true);
            }
            if count == 0 {
                return Ok(false);
            }
            if self.line.len() as u64 > LONGEST {
                // Its rest is read as a line that is none.
                self.line.clear();
                self.line.push(b'?');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use super::*;
    use crate::bounded::BoundedLog;
    use crate::supervisor::logs::Store;

    fn piece(number: u64) -> LogPiece {
        // One that JSON escapes, and one that is no text: neither's bytes are the file's.
        let text = format!("\u{1b}\u{1b}\u{1b}{number:06}\n").into_bytes();
        LogPiece::new(false, number, if number.is_multiple_of(2) { text } else { [&[0xff; 3], &text[3..]].concat() })
    }

    fn read(log: &mut LogFile) -> Vec<u64> {
        std::iter::from_fn(|| log.next().unwrap()).map(|piece| piece.time).collect()
    }

    fn store(path: &Path, files: u32) -> Store {
        Store::open(path, LogLimits { max_bytes: 400, files }).unwrap()
    }

    #[test]
    fn whoever_follows_misses_nothing_of_a_log_that_is_started_anew() {
        for (files, often) in [(1, 1), (2, 1), (2, 5), (4, 11)] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut log = LogFile::open(&path);
            assert!(log.next().unwrap().is_none(), "there is none yet");
            let mut store = store(&path, files);
            let mut seen = Vec::new();
            for number in 0..200 {
                store.add(&piece(number), 0).unwrap();
                if number % often == 0 {
                    seen.extend(read(&mut log));
                }
            }
            seen.extend(read(&mut log));
            let wanted: Vec<u64> = (0..200).collect();
            assert_eq!((seen, log.lost()), (wanted, 0), "{files} {often}");
        }
    }

    #[test]
    fn a_guest_that_counts_beyond_every_number_stops_neither_who_writes_nor_who_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        for run in 0..2 {
            let mut writer = store(&path, 2);
            for number in 0..2 {
                writer.add(&piece(2 * run + number), u64::MAX).unwrap();
            }
        }
        let mut log = LogFile::open(&path);
        assert_eq!((read(&mut log), log.lost()), (vec![0, 1, 2, 3], u64::MAX));
    }

    #[test]
    fn what_is_gone_is_counted_in_the_programs_bytes_from_the_beginning_and_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut writer = store(&path, 2);
        let mut follower = LogFile::open(&path);
        let (mut seen, mut lost) = (0, 0);
        let all: u64 = (0..100).map(|number| piece(number).len()).sum();
        for number in 0..100 {
            if number == 50 {
                // Another run of the box.
                drop(writer);
                writer = store(&path, 2);
            }
            writer.add(&piece(number), 0).unwrap();
            if number == 3 {
                assert_eq!(read(&mut follower), [0, 1, 2, 3]);
            }
        }
        for log in [&mut follower, &mut LogFile::open(&path)] {
            while let Some(piece) = log.next().unwrap() {
                seen += piece.len();
                lost += log.lost();
            }
        }
        let of_follower: u64 = (0..4).map(|number| piece(number).len()).sum();
        assert_eq!(seen + lost, 2 * all - of_follower);
        assert!(lost > 0);
    }

    #[test]
    fn what_was_never_stored_is_counted_where_it_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut store = store(&path, 2);
        store.add(&piece(0), 0).unwrap();
        store.add(&piece(1), 77).unwrap();
        let mut log = LogFile::open(&path);
        assert_eq!((log.next().unwrap().unwrap().time, log.lost()), (0, 0));
        assert_eq!((log.next().unwrap().unwrap().time, log.lost()), (1, 77));
    }

    #[test]
    fn no_more_than_a_line_is_held_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut store = Store::open(&path, LogLimits::default()).unwrap();
        for number in 0..5000 {
            store.add(&piece(number), 0).unwrap();
        }
        let mut log = LogFile::open(&path);
        assert_eq!(log.next().unwrap().unwrap().time, 0);
        let read = log.parts[0].lines.get_mut().stream_position().unwrap();
        assert!(read < std::fs::metadata(&path).unwrap().len() / 2, "{read}");

        let mut raw = BoundedLog::open(&path, 1 << 30).unwrap();
        raw.write(&vec![b'x'; 3 << 20]).unwrap();
        raw.write(b"\n").unwrap();
        store.add(&piece(7), 0).unwrap();
        let mut last = None;
        while let Some(piece) = log.next().unwrap() {
            assert!(log.parts[0].line.capacity() <= 3 << 20);
            last = Some(piece.time);
        }
        assert_eq!(last, Some(7));
    }
}
