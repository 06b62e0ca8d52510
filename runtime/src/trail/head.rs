//! The head of a trail: what its last line must be. A file of one size that is written in place, so that a full disk has room for it; its
//! lock is the writers'.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coffer_rim::regular;
use serde::{Deserialize, Serialize};

use super::line::NOTHING_BEFORE;

const BYTES: usize = 512;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    /// So many lines were written, all in all.
    pub lines: u64,
    /// Digest of the last of them.
    pub digest: String,
    /// The part that it is in.
    pub part: u64,
    /// Bytes of that part.
    pub size: u64,
    /// The oldest line that is kept.
    pub first: u64,
    /// What it says of the one before it.
    pub before_first: String,
}

impl Head {
    /// Of a trail without a line.
    pub fn new() -> Self {
        let nothing = NOTHING_BEFORE.to_owned();
        Self { lines: 0, digest: nothing.clone(), part: 1, size: 0, first: 1, before_first: nothing }
    }

    fn path(folder: &Path) -> PathBuf {
        folder.join("head")
    }

    /// What is there; nothing where there is none, or none that can be read.
    pub fn look(folder: &Path) -> io::Result<Option<Self>> {
        match regular::open(OpenOptions::new().read(true), &Self::path(folder)) {
            Ok(file) => Self::read(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens it, and waits for whoever writes, which takes a moment, and not for ever.
    ///
    /// # Errors
    /// The file system's; `WouldBlock` where somebody holds it and does not let go.
    pub fn lock(folder: &Path, patience: Duration) -> io::Result<File> {
        let path = Self::path(folder);
        let mut options = OpenOptions::new();
        let file = regular::open(options.read(true).write(true).create(true).truncate(false).mode(0o600), &path)?;
        let late = Instant::now() + patience;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < late => std::thread::sleep(Duration::from_millis(2)),
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// As [`Self::look`].
    pub fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; BYTES];
        let mut count = 0;
        while let more @ 1.. = file.read_at(&mut bytes[count..], count as u64)? {
            count += more;
        }
        Ok(serde_json::from_slice(&bytes[..count]).ok())
    }

    /// Writes it.
    pub fn write(&self, file: &File) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.resize(BYTES - 1, b' ');
        bytes.push(b'\n');
        file.write_all_at(&bytes, 0)
    }
}
