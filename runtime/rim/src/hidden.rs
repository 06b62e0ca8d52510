//! The name that a file has for an instant, or until it is whole, beside the one that it is to have.
//!
//! It follows from that one, and whoever has such a file holds its lock for as long as it has this name. So whoever finds one that nobody
//! holds has found what a killed process left, and takes its place; one that is held is somebody's who writes the same file right now.
//! Source: flock(2), which the kernel lets go of with the last descriptor; openat(2), O_EXCL.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, flock, fstat, openat, statat, unlinkat};
use rustix::io::{Errno, Result};

/// So many may write a file of one name at once.
const MOST: u32 = 64;

/// Has `make` make a file of the first such name that nobody has, for one that will be called `of`. Gives what it made, and that name.
///
/// # Errors
/// Those of `make`, which has not made a file where something of the name is there.
pub(crate) fn named<T>(
    folder: BorrowedFd<'_>,
    of: &OsStr,
    mut make: impl FnMut(&str) -> Result<T>,
) -> Result<(T, String)> {
    for number in 0..MOST {
        let name = name(of, number);
        match make(&name) {
            Err(Errno::EXIST) if leave_taken(folder, &name) => match make(&name) {
                // Somebody else was quicker.
                Err(Errno::EXIST) => {}
                made => return made.map(|made| (made, name)),
            },
            Err(Errno::EXIST) => {}
            made => return made.map(|made| (made, name)),
        }
    }
    // All of them are held, or somebody's who wants to be in the way: then one that nobody could foresee.
    let name = random()?;
    make(&name).map(|made| (made, name))
}

/// A name that nobody could foresee, and that whoever is killed leaves.
pub(crate) fn random() -> Result<String> {
    let mut number = [0; 8];
    let got = rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty())?;
    if got < number.len() {
        return Err(Errno::IO);
    }
    Ok(format!(".coffer-{:016x}", u64::from_be_bytes(number)))
}

/// Takes the lock of a file that we have, for as long as it is open, and says whether it still has that name. Without one that cannot be
/// had it is nobody's to remove, too.
pub(crate) fn hold(folder: BorrowedFd<'_>, name: &str, file: &File) -> bool {
    while let Err(Errno::INTR) = flock(file, FlockOperation::LockExclusive) {}
    is_at(folder, name, file)
}

/// Removes what a process left that is no more.
fn leave_taken(folder: BorrowedFd<'_>, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(left) = openat(folder, name, flags, Mode::empty()).map(File::from) else { return false };
    let Ok(stat) = fstat(&left) else { return false };
    let is_ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_uid == rustix::process::geteuid().as_raw();
    // Looked at under its lock: between the two it may have become a file that is whole, and ours no more.
    is_ours
        && flock(&left, FlockOperation::NonBlockingLockExclusive).is_ok()
        && is_at(folder, name, &left)
        && unlinkat(folder, name, AtFlags::empty()).is_ok()
}

fn is_at(folder: BorrowedFd<'_>, name: &str, file: &impl AsFd) -> bool {
    let (Ok(one), Ok(other)) = (fstat(file), statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)) else { return false };
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// FNV-1a of the name that the file is to have: that may be as long as a name can be. Two that share one keep out of each other's way.
fn name(of: &OsStr, number: u32) -> String {
    let hash = of
        .as_bytes()
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    format!(".coffer-new-{hash:016x}-{number}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_killed_one_left_goes_and_what_somebody_writes_stays() {
        let dir = tempfile::tempdir().unwrap();
        let folder = File::open(dir.path()).unwrap();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let make = |name: &str| openat(folder.as_fd(), name, flags, Mode::RUSR | Mode::WUSR).map(File::from);
        let of = OsStr::new("key.pem");
        let next = || named(folder.as_fd(), of, make).unwrap();
        let (left, first) = next();
        assert!(hold(folder.as_fd(), &first, &left));
        // It is being written: another one has another name.
        let (other, second) = next();
        assert!(hold(folder.as_fd(), &second, &other) && first != second);
        assert!(named(folder.as_fd(), OsStr::new("cert.pem"), make).unwrap().1 != first, "of another file");
        // Its writer is no more.
        drop(left);
        let (again, name) = next();
        assert_eq!(name, first);
        assert!(hold(folder.as_fd(), &name, &again) && fs::metadata(dir.path().join(&second)).is_ok());
        // What is no file of ours is let be.
        drop(again);
        fs::remove_file(dir.path().join(&first)).unwrap();
        std::os::unix::fs::symlink("key.pem", dir.path().join(&first)).unwrap();
        assert!(next().1 != first && dir.path().join(&first).is_symlink());
    }

    #[test]
    fn whoever_has_all_names_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let folder = File::open(dir.path()).unwrap();
        let of = OsStr::new("key.pem");
        for number in 0..MOST {
            std::os::unix::fs::symlink("elsewhere", dir.path().join(name(of, number))).unwrap();
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let make = |name: &str| openat(folder.as_fd(), name, flags, Mode::RUSR | Mode::WUSR).map(File::from);
        let (_file, made) = named(folder.as_fd(), of, make).unwrap();
        assert!(dir.path().join(&made).is_file());
    }

    #[test]
    fn one_that_was_taken_for_left_is_not_ours_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let folder = File::open(dir.path()).unwrap();
        let file = File::create(dir.path().join("name")).unwrap();
        fs::remove_file(dir.path().join("name")).unwrap();
        assert!(!hold(folder.as_fd(), "name", &file));
        File::create(dir.path().join("name")).unwrap();
        assert!(!hold(folder.as_fd(), "name", &file), "another one has its name");
    }
}
