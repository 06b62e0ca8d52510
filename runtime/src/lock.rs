//! The lock of a box: whoever holds it supervises the box, and nothing else says that a box lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// The held lock; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct BoxLock {
    _file: File,
}

impl BoxLock {
    /// Takes the lock. Probes of other commands hold it for an instant, so a short wait is in order.
    ///
    /// # Errors
    /// `WouldBlock` if another supervisor has it.
    pub fn take(folder: &Path) -> io::Result<Self> {
        let file = open(folder)?;
        let patience = Instant::now() + Duration::from_secs(1);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(io::Error::from(io::ErrorKind::WouldBlock)),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// True while a supervisor lives. Probes share the lock, so that they never take each other for a supervisor.
    pub fn is_held(folder: &Path) -> bool {
        open(folder).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// Waits until no supervisor lives; false if one still does after `patience`.
    pub fn wait_free(folder: &Path, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        while Self::is_held(folder) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }
}

fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join("lock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_supervisor_counts_as_a_holder() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!BoxLock::is_held(dir.path()));
        let lock = BoxLock::take(dir.path()).unwrap();
        assert!(BoxLock::is_held(dir.path()));
        assert!(BoxLock::take(dir.path()).is_err());
        assert!(!BoxLock::wait_free(dir.path(), Duration::from_millis(20)));
        drop(lock);
        assert!(BoxLock::wait_free(dir.path(), Duration::ZERO));
        assert!(!BoxLock::is_held(&dir.path().join("gone")));
    }
}
