//! The lock of a box: whoever holds it supervises the box, and nothing else says that a box lives.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::fcntl_dupfd_cloexec;

/// The held lock; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct BoxLock {
    file: File,
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
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if Instant::now() < patience => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(io::Error::from(io::ErrorKind::WouldBlock)),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Leaves the lock to the program that this process becomes, on standard input.
    ///
    /// # Errors
    /// As `dup2(2)`.
    pub fn hand_over(&self) -> io::Result<()> {
        Ok(rustix::stdio::dup2_stdin(&self.file)?)
    }

    /// The lock that the program before this one left on standard input.
    ///
    /// # Errors
    /// If what is there is not the lock of this folder, or not held.
    pub fn handed_over(folder: &Path) -> io::Result<Self> {
        let file = File::from(fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
        // No program that we start gets it: the lock would outlive us.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let (given, ours) = (file.metadata()?, open(folder)?.metadata()?);
        if (given.dev(), given.ino()) != (ours.dev(), ours.ino()) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        // Of one open file there is one lock: this takes nothing that is not ours already, or nobody's.
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(io::Error::from(io::ErrorKind::WouldBlock)),
            Err(TryLockError::Error(error)) => Err(error),
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
    fn a_lock_that_is_handed_over_is_held_all_along_and_another_is_none() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let lock = BoxLock::take(dir.path()).unwrap();
        lock.hand_over().unwrap();
        drop(lock);
        assert!(BoxLock::is_held(dir.path()), "standard input has it");
        let taken = BoxLock::handed_over(dir.path()).unwrap();
        assert!(BoxLock::is_held(dir.path()) && BoxLock::take(dir.path()).is_err());
        taken.hand_over().unwrap();
        assert!(BoxLock::handed_over(other.path()).is_err());
        drop(taken);
        assert!(!BoxLock::is_held(dir.path()), "nothing of it is left open");
    }

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
