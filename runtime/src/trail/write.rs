//! Writes lines: one process at a time, each line whole, the head behind it.
//!
//! Killed between the two, the head is one line behind, which the next writer sees, and never two; killed within a line, its half is cut off by the next
//! writer, who says so in a line of its own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coffer_rim::failure::DISK_FULL;
use coffer_rim::{Class, Failure, regular};
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::{Map, Value};

use super::head::Head;
use super::line::{Act, Line, MENDED, Outcome, digest};
use super::parts;
use super::read::Part;

/// Bytes of a part.
const PART: u64 = 4 << 20;

/// So many parts are kept.
const PARTS: usize = 4;

/// Room on the disk that is taken before it is needed, so that what frees a full one can be recorded.
const ROOM: u64 = 64 << 10;

/// Many times what all who may write at once take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a trail lies.
#[derive(Clone, Debug)]
pub struct Trail {
    folder: PathBuf,
    part: u64,
    parts: usize,
    patience: Duration,
}

/// Why a line is not written.
#[derive(Debug, thiserror::Error)]
#[error("cannot record what is done in {folder}", folder = .folder.display())]
pub struct TrailError {
    folder: PathBuf,
    source: WriteError,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("another process has held the lock of its head for {} s", .0.as_secs())]
    Held(Duration),
    #[error(transparent)]
    File(#[from] io::Error),
}

impl TrailError {
    /// What the operator can do.
    pub fn hint(&self) -> Option<String> {
        match &self.source {
            WriteError::Held(_) => {
                let head = self.folder.join("head");
                Some(format!("see who holds {}, such as by `fuser -v`, end it, and try again", head.display()))
            }
            WriteError::File(error) => (error.kind() == io::ErrorKind::StorageFull).then(|| DISK_FULL.into()),
        }
    }
}

impl From<TrailError> for Failure {
    fn from(error: TrailError) -> Self {
        let failure = Self::caused(Class::Config, &error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl Trail {
    /// The trail in a folder, which is made with its first line.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder, part: PART, parts: PARTS, patience: PATIENCE }
    }

    /// One of small parts.
    #[cfg(test)]
    pub fn small(folder: PathBuf, part: u64, parts: usize) -> Self {
        Self { folder, part, parts, patience: PATIENCE }
    }

    /// The same, waiting so long for others.
    #[cfg(test)]
    #[must_use]
    pub fn waiting(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes a line and gives its number.
    ///
    /// # Errors
    /// [`TrailError`]; there is no such line then, nor half of one.
    pub fn add(&self, act: &Act) -> Result<u64, TrailError> {
        self.try_add(act).map_err(|source| TrailError { folder: self.folder.clone(), source })
    }

    fn try_add(&self, act: &Act) -> Result<u64, WriteError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let file = Head::lock(&self.folder, self.patience).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => WriteError::Held(self.patience),
            _ => error.into(),
        })?;
        let (mut head, mended) = self.tail(&file)?;
        // Before the first part is there: what has no line yet has lost none. And before a line is written behind one that the head does
        // not know yet: one is all that a writer who was killed leaves.
        if head == Head::new() || Head::read(&file)?.as_ref() != Some(&head) {
            head.write(&file)?;
        }
        if !mended.is_empty() {
            let what = Value::Object(mended.clone());
            tracing::warn!(%what, "the trail of this home was mended");
            let details = mended;
            self.append(&file, &mut head, &Act { details, ..Act::new(MENDED, Outcome::Done) })?;
        }
        Ok(self.append(&file, &mut head, act)?)
    }

    /// What the next line follows, and what was not as it should be.
    fn tail(&self, file: &File) -> io::Result<(Head, Map<String, Value>)> {
        let mut mended = Map::new();
        let (mut head, known) = match Head::read(file)? {
            Some(head) => (head, true),
            None => (Head::new(), false),
        };
        if !known && let Some(last) = parts::all(&self.folder)?.pop() {
            mended.insert("head".into(), "missing".into());
            head.part = last;
            (head.first, head.before_first) = self.beginning(0)?.unwrap_or((head.first, head.before_first));
        }
        let path = parts::path(&self.folder, head.part);
        let length = match std::fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if length < head.size {
            mended.insert("missing_bytes".into(), (head.size - length).into());
            head.size = length;
            return Ok((head, mended));
        }
        if length == head.size {
            return Ok((head, mended));
        }
        let mut part = Part::open(&self.folder, head.part)?;
        part.seek(head.size)?;
        let (mut foreign, mut behind) = (0_u64, 0_u64);
        while let Some(bytes) = part.next()? {
            match Line::read(&bytes) {
                Some(line)
                    if !known
                        || behind == 0
                            && (line.number, &*line.previous) == (head.lines.saturating_add(1), &head.digest) =>
                {
                    behind += 1;
                    (head.lines, head.digest) = (line.number, digest(&bytes));
                }
                _ => foreign += 1,
            }
        }
        head.size = part.at();
        if foreign > 0 {
            mended.insert("foreign_lines".into(), foreign.into());
        }
        if length > head.size {
            regular::open(OpenOptions::new().write(true), &path)?.set_len(head.size)?;
            mended.insert("half_line_bytes".into(), (length - head.size).into());
        }
        Ok((head, mended))
    }

    fn append(&self, file: &File, head: &mut Head, act: &Act) -> io::Result<u64> {
        let line = Line::of(act, head.lines.saturating_add(1), &head.digest);
        let mut bytes = line.bytes();
        let digest = digest(&bytes);
        bytes.push(b'\n');
        if head.size > 0 && head.size + bytes.len() as u64 > self.part {
            self.begin_part(file, head)?;
        }
        let path = parts::path(&self.folder, head.part);
        let mut part = regular::open(OpenOptions::new().read(true).append(true).create(true).mode(0o600), &path)?;
        let mut last = [b'\n'];
        if head.size > 0 {
            part.read_exact_at(&mut last, head.size - 1)?;
        }
        if last != [b'\n'] {
            // Somebody has cut a line: ours is not to be its rest.
            bytes.insert(0, b'\n');
        }
        let after = head.size + bytes.len() as u64;
        if head.size == 0 || head.size / ROOM != after / ROOM {
            // Where the file system cannot, there is none.
            let _ = fallocate(&part, FallocateFlags::KEEP_SIZE, head.size, 2 * ROOM);
        }
        let next = Head { lines: line.number, digest, size: after, ..head.clone() };
        if let Err(error) = part.write_all(&bytes).and_then(|()| next.write(file)) {
            part.set_len(head.size)?;
            return Err(error);
        }
        *head = next;
        Ok(line.number)
    }

    /// The next line begins another part. The head says so first: whoever is killed on the way leaves one that is not there yet, or an
    /// old one too many, which goes with the next.
    fn begin_part(&self, file: &File, head: &mut Head) -> io::Result<()> {
        let kept = parts::all(&self.folder)?;
        let oldest = kept.len().saturating_sub(self.parts.saturating_sub(1));
        (head.part, head.size) = (head.lines.saturating_add(1), 0);
        let first = kept.get(oldest).copied().unwrap_or(head.part);
        (head.first, head.before_first) = self.beginning(first)?.unwrap_or((head.part, head.digest.clone()));
        head.write(file)?;
        for gone in kept.iter().filter(|number| **number < first) {
            std::fs::remove_file(parts::path(&self.folder, *gone))?;
        }
        Ok(())
    }

    /// The first line that can be read in the parts from this one on: its number, and what it says of the line before it.
    fn beginning(&self, from: u64) -> io::Result<Option<(u64, String)>> {
        for number in parts::all(&self.folder)?.into_iter().filter(|number| *number >= from) {
            let line = Part::open(&self.folder, number)?.next()?.and_then(|bytes| Line::read(&bytes));
            if let Some(line) = line {
                return Ok(Some((line.number, line.previous)));
            }
        }
        Ok(None)
    }
}
