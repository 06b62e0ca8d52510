//! Files that have no name yet: whoever is killed leaves nothing.
//!
//! Source: open(2), O_TMPFILE; linkat(2), AT_SYMLINK_FOLLOW.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, linkat, openat, stat};
use rustix::io::Result;
use rustix::path::Arg;

/// One on the file system of this folder, for its owner to write; nothing where that cannot do without names.
pub fn new(at: BorrowedFd<'_>, folder: impl Arg) -> Option<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = openat(at, folder, flags, Mode::RUSR | Mode::WUSR).ok()?;
    can_be_named(&file).then(|| file.into())
}

/// Gives it a name, which nothing has yet.
///
/// # Errors
/// The file system's.
pub fn link(file: &impl AsFd, at: BorrowedFd<'_>, name: impl Arg) -> Result<()> {
    linkat(CWD, way_to(file), at, name, AtFlags::SYMLINK_FOLLOW)
}

/// A path to a file that is open, for this process.
pub fn way_to(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

/// Its name is given through `/proc`, which may not be there, or be something else.
fn can_be_named(file: &impl AsFd) -> bool {
    let (Ok(one), Ok(other)) = (fstat(file), stat(way_to(file))) else { return false };
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
