//! Logs that a guest fills: kept up to a size, then started anew with the former parts beside it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file of at most `limit` bytes, and as much again in each of `<file>.1`, the newest former part, and so on.
#[derive(Debug)]
pub struct BoundedLog {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    parts: u32,
}

/// Where the former part of a log lies.
pub fn former(path: &Path) -> PathBuf {
    part(path, 1)
}

/// Where a part lies: the log itself is 0, and those before it count up.
pub fn part(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_path_buf();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

impl BoundedLog {
    /// Opens a log at its end.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        Self::open_parts(path, limit, 2)
    }

    /// The same of a log of so many parts, itself counted.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn open_parts(path: &Path, limit: u64, parts: u32) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_path_buf(), file, written, limit, parts })
    }

    /// Adds a piece, which is never cut.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.make_room(piece.len())?;
        self.file.write_all(piece)?;
        self.written += piece.len() as u64;
        Ok(())
    }

    /// Begins a new part where the next piece has no room in this one. True if it did.
    ///
    /// # Errors
    /// As `rename(2)` and `open(2)`.
    pub fn make_room(&mut self, length: usize) -> io::Result<bool> {
        let full = self.written > 0 && self.written + length as u64 > self.limit;
        if full {
            for number in (0..self.parts.saturating_sub(1)).rev() {
                // A part is missing where we were killed between two of these.
                match std::fs::rename(part(&self.path, number), part(&self.path, number + 1)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            if self.parts < 2 {
                std::fs::remove_file(&self.path)?;
            }
            *self = Self::open_parts(&self.path, self.limit, self.parts)?;
        }
        Ok(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_as_many_parts_as_it_may() {
        for parts in [1, 2, 4] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("log");
            let mut log = BoundedLog::open_parts(&path, 30, parts).unwrap();
            for n in 0..20 {
                log.write(format!("line {n:04}\n").as_bytes()).unwrap();
            }
            let kept: Vec<_> = (0..9).rev().filter_map(|n| std::fs::read_to_string(part(&path, n)).ok()).collect();
            assert_eq!(kept.len(), parts as usize);
            assert!(kept.concat().ends_with("line 0018\nline 0019\n"));
        }
        // Killed while the parts moved: one is missing, and nothing fails for it.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut log = BoundedLog::open_parts(&path, 30, 3).unwrap();
        for n in 0..20 {
            let _ = std::fs::remove_file(part(&path, 1));
            log.write(format!("line {n:04}\n").as_bytes()).unwrap();
        }
    }

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
