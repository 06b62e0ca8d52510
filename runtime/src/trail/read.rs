//! The lines of a trail, oldest first, to the last that there is now, and on from there.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use coffer_rim::regular;

use super::line::{LONGEST, Line};
use super::parts;

/// A trail that is read. What is no line of ours is passed over here: a check of the trail names it.
#[derive(Debug)]
pub struct Lines {
    folder: PathBuf,
    part: Option<Part>,
}

/// A file, and where its next line begins.
#[derive(Debug)]
pub(super) struct Part {
    number: u64,
    file: BufReader<File>,
    at: u64,
}

impl Lines {
    /// From the oldest line that is kept. There need be none yet.
    pub fn all(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), part: None }
    }

    /// From the next that is written.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn new(folder: &Path) -> io::Result<Self> {
        let mut lines = Self::all(folder);
        if let Some(last) = parts::all(folder)?.pop() {
            let mut part = Part::open(folder, last)?;
            while part.next()?.is_some() {}
            lines.part = Some(part);
        }
        Ok(lines)
    }

    /// The next line; nothing where there is none yet.
    ///
    /// # Errors
    /// As `read(2)`.
    pub fn next_line(&mut self) -> io::Result<Option<Line>> {
        let mut gone = 0;
        loop {
            while let Some(bytes) = self.part.as_mut().map_or(Ok(None), Part::next)? {
                if let Some(line) = Line::read(&bytes) {
                    return Ok(Some(line));
                }
            }
            let here = self.part.as_ref().map_or(0, |part| part.number);
            let Some(newer) = parts::all(&self.folder)?.into_iter().find(|number| *number > here) else {
                return Ok(None);
            };
            // What this one got between its end and the beginning of the next is read first.
            if let Some(bytes) = self.part.as_mut().map_or(Ok(None), Part::next)? {
                if let Some(line) = Line::read(&bytes) {
                    return Ok(Some(line));
                }
                continue;
            }
            match Part::open(&self.folder, newer) {
                Ok(part) => self.part = Some(part),
                // The oldest goes where there are enough; one that is named and never there is somebody else's doing.
                Err(error) if error.kind() == io::ErrorKind::NotFound && gone < MOST_GONE => gone += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Parts that go while they are looked for.
const MOST_GONE: u32 = 16;

/// More bytes than a part gets. What is longer, holes that a file system stores as nothing say, is not read to its end.
const MOST: u64 = 16 << 20;

impl Part {
    pub fn open(folder: &Path, number: u64) -> io::Result<Self> {
        let file = regular::open(OpenOptions::new().read(true), &parts::path(folder, number))?;
        Ok(Self { number, file: BufReader::new(file), at: 0 })
    }

    /// From a byte on, at which a line begins.
    pub fn seek(&mut self, at: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(at))?;
        self.at = at;
        Ok(())
    }

    /// Its bytes.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.get_ref().metadata()?.len())
    }

    /// Where the next line begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next line's bytes without its line feed; nothing where it has no end yet, which may be another's by then, and behind what a
    /// part gets.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.at >= MOST {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        (&mut self.file).take(LONGEST as u64 + 1).read_until(b'\n', &mut bytes)?;
        if bytes.last() == Some(&b'\n') {
            self.at += bytes.len() as u64;
            bytes.pop();
            return Ok(Some(bytes));
        }
        if bytes.len() > LONGEST {
            // None of ours: its rest is read as another.
            self.at += bytes.len() as u64;
            return Ok(Some(bytes));
        }
        self.file.seek(SeekFrom::Start(self.at))?;
        Ok(None)
    }
}
