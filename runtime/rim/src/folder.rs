//! Folders that a person names, for something to be made in them: one that is to be private, and one on a medium, below which no link
//! is followed.
//!
//! Trusts: the way to the folder, which was typed, and its owner, whoever that is. Never: follows a link below it; takes a folder for
//! private that more than its owner may write to.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, openat, statat};
use rustix::io::Errno;

use crate::file::Writer;

/// Makes an empty folder that its owner alone reaches, or makes one so that is there and empty, where we may. The error of one that is
/// not empty is [`io::ErrorKind::DirectoryNotEmpty`], and that folder stays as it is.
///
/// # Errors
/// The file system's, and one for a folder of another user's that more than that user may write to.
pub fn private_and_empty(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let empty = || fs::read_dir(folder).map(|mut entries| entries.next().is_none());
    if !empty()? {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    tighten(folder)?;
    // Until a moment ago somebody else may have been able to put something there.
    if empty()? { Ok(()) } else { Err(io::ErrorKind::DirectoryNotEmpty.into()) }
}

/// Makes a folder that is there one that its owner alone reaches, where we may: of another user's folder root alone may.
///
/// # Errors
/// The file system's, and one for a folder of another user's that more than that user may write to.
pub fn tighten(folder: &Path) -> io::Result<()> {
    let opened = File::open(folder)?;
    let mode = opened.metadata()?.permissions().mode() & 0o7777;
    if mode.trailing_zeros() >= 6 {
        return Ok(());
    }
    match opened.set_permissions(Permissions::from_mode(0o700)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => left_as_it_is(mode),
        done => done,
    }
}

/// Of a folder that belongs to another user.
fn left_as_it_is(mode: u32) -> io::Result<()> {
    if mode & 0o022 == 0 {
        return Ok(());
    }
    let words =
        format!("it has mode {mode:04o}, so that others may write to it, and belongs to another user: chmod 700 it");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, words))
}

/// A folder into which files are written under names of several parts.
#[derive(Debug)]
pub struct Beneath(OwnedFd);

impl Beneath {
    /// Of this folder, made where it is not there. It may be a link: it was named.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self(File::open(folder)?.into()))
    }

    /// Writes a whole file under this name, and makes the folders above it that are not there.
    ///
    /// # Errors
    /// The file system's, and one for a link in the way, or in the file's place, by its name.
    pub fn write(&self, name: &Path, writer: Writer, bytes: &[u8]) -> io::Result<()> {
        let file = name.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = self.folder(name.parent().unwrap_or(Path::new("")))?;
        // The very folder that was reached, whatever its name is by now.
        writer.write(&Path::new("/proc/self/fd").join(above.as_raw_fd().to_string()).join(file), bytes)
    }

    fn folder(&self, names: &Path) -> io::Result<OwnedFd> {
        let (mut reached, mut here) = (PathBuf::new(), self.0.try_clone()?);
        for part in names.components() {
            let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
            reached.push(name);
            match mkdirat(&here, name, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            here = openat(&here, name, flags, Mode::empty()).map_err(|error| {
                let found = statat(here.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
                if found.is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink) {
                    let words = format!("{} is a symbolic link, which is not followed", reached.display());
                    return io::Error::new(io::ErrorKind::InvalidInput, words);
                }
                io::Error::from(error)
            })?;
        }
        Ok(here)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn an_empty_folder_of_ours_is_made_private_and_one_with_something_in_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (new, open, used) = (dir.path().join("deep/new"), dir.path().join("open"), dir.path().join("used"));
        for folder in [&open, &used] {
            fs::create_dir(folder).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
        }
        fs::write(used.join("file"), "").unwrap();
        private_and_empty(&new).unwrap();
        private_and_empty(&open).unwrap();
        assert_eq!((mode(&new), mode(&open)), (0o700, 0o700));
        assert_eq!(private_and_empty(&used).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        assert_eq!(mode(&used), 0o777, "it is somebody's");
    }

    #[test]
    fn a_folder_of_another_users_is_taken_where_nobody_else_may_write() {
        for (mode, taken) in [(0o755, true), (0o750, true), (0o775, false), (0o1777, false), (0o702, false)] {
            let done = left_as_it_is(mode);
            assert_eq!(done.is_ok(), taken, "{mode:o}");
            if let Err(error) = done {
                assert!(error.to_string().contains(&format!("mode {mode:04o}")), "{error}");
            }
        }
    }

    #[test]
    fn what_is_written_below_a_folder_goes_through_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let (medium, elsewhere, link) =
            (dir.path().join("medium"), dir.path().join("elsewhere"), dir.path().join("link"));
        fs::create_dir(&elsewhere).unwrap();
        symlink("medium", &link).unwrap();
        fs::create_dir(&medium).unwrap();
        // The folder itself was named.
        let beneath = Beneath::open(&link).unwrap();
        let writer = Writer::private().mode(0o644);
        beneath.write(Path::new("a/b/file"), writer, b"one").unwrap();
        beneath.write(Path::new("a/b/file"), writer, b"two").unwrap();
        beneath.write(Path::new("file"), writer, b"three").unwrap();
        assert_eq!(fs::read(medium.join("a/b/file")).unwrap(), b"two");
        assert_eq!(mode(&medium.join("a/b/file")), 0o644);
        assert_eq!(fs::read(medium.join("file")).unwrap(), b"three");
        symlink(&elsewhere, medium.join("out")).unwrap();
        symlink(&elsewhere, medium.join("a/out")).unwrap();
        symlink("../elsewhere/file", medium.join("c")).unwrap();
        for (name, said) in [
            ("out/file", "out is a symbolic link, which is not followed"),
            ("a/out/b/file", "a/out is a symbolic link, which is not followed"),
            ("c", "it is a symbolic link, which is not replaced: name what it leads to"),
            ("../elsewhere/file", "invalid input parameter"),
            ("file/below", "Not a directory (os error 20)"),
        ] {
            assert_eq!(beneath.write(Path::new(name), writer, b"x").unwrap_err().to_string(), said, "{name}");
        }
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
