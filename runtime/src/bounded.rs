//! Logs that a guest fills: kept up to a size, then started anew with the former one beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file of at most `limit` bytes, and as much again in `<file>.1`.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

/// Where the former part of a log lies.
pub fn former(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

impl BoundedLog {
    /// Opens a log at its end.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_path_buf(), file, written, limit })
    }

    /// Adds a piece, which is never cut.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.written > 0 && self.written + piece.len() as u64 > self.limit {
            std::fs::rename(&self.path, former(&self.path))?;
            *self = Self::open(&self.path, self.limit)?;
        }
        self.file.write_all(piece)?;
        self.written += piece.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_holds_more_than_twice_its_limit_and_cuts_no_piece() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = BoundedLog::open(&path, 100).unwrap();
        for n in 0..50 {
            log.write(format!("line {n:04}\n").as_bytes()).unwrap();
            let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
            assert!(size(&path) <= 100 && size(&former(&path)) <= 100);
        }
        let all = std::fs::read_to_string(former(&path)).unwrap() + &std::fs::read_to_string(&path).unwrap();
        assert!(all.ends_with("line 0049\n"));
        assert!(all.lines().all(|line| line.len() == 9));
    }
}
