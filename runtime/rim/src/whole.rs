//! A file that has no name until it is whole.
//!
//! It is made without one where the file system can do that, so that whoever is killed leaves nothing, but for the instant in which it takes
//! another's place, which takes a name; else under a hidden one beside its place, which goes when it is dropped. What a killed one left goes
//! with the next one that is to have the same name ([`crate::hidden`]).
//! Source: open(2), O_TMPFILE; linkat(2), AT_SYMLINK_FOLLOW.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, flock, linkat, openat, renameat, renameat_with,
    statat, unlinkat,
};
use rustix::io::{Errno, Result};

use crate::{hidden, unnamed};

/// What stands where something is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum There {
    /// Nothing, or a file or link, whose place is taken.
    Free,
    Folder,
    /// A device, pipe or socket: to replace that is never what was meant.
    Other,
}

/// Looks, through no link.
pub(crate) fn there(folder: BorrowedFd<'_>, name: &OsStr) -> Result<There> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Err(Errno::NOENT) | Ok(FileType::RegularFile | FileType::Symlink) => Ok(There::Free),
        Ok(FileType::Directory) => Ok(There::Folder),
        Ok(_) => Ok(There::Other),
        Err(error) => Err(error),
    }
}

/// One that has no name of its own yet.
#[derive(Debug)]
pub(crate) struct Whole<'a> {
    folder: BorrowedFd<'a>,
    file: File,
    /// For as long as it is not whole; none where it needs none.
    hidden: Option<String>,
}

impl<'a> Whole<'a> {
    /// In this folder, for its owner to write. `of`: the name that it will have.
    pub(crate) fn new(folder: BorrowedFd<'a>, of: &OsStr) -> Result<Self> {
        match unnamed::new(folder, ".") {
            Some(file) => Ok(Self { folder, file, hidden: None }),
            None => Self::hidden(folder, of),
        }
    }

    fn hidden(folder: BorrowedFd<'a>, of: &OsStr) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        loop {
            let make = |name: &str| openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map(File::from);
            let (file, hidden) = hidden::named(folder, of, make)?;
            // Before it was held, somebody may have taken it for left.
            if hidden::hold(folder, &hidden, &file) {
                return Ok(Self { folder, file, hidden: Some(hidden) });
            }
        }
    }

    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives it its name, which nothing has yet.
    pub(crate) fn name_anew(self, name: &OsStr) -> Result<()> {
        let Some(hidden) = &self.hidden else { return self.link(name) };
        match renameat_with(self.folder, hidden.as_str(), self.folder, name, RenameFlags::NOREPLACE) {
            // Not every file system knows how; then the hidden name goes when this is dropped.
            Err(Errno::INVAL | Errno::NOSYS) => {
                linkat(self.folder, hidden.as_str(), self.folder, name, AtFlags::empty())
            }
            done => done,
        }
    }

    /// Gives it its name, in place of the file or link that may have it.
    pub(crate) fn name(mut self, name: &OsStr) -> Result<()> {
        if self.hidden.is_none() {
            match self.link(name) {
                Err(Errno::EXIST) => {}
                done => return done,
            }
            let make = |hidden: &str| {
                // It is held before it has a name: nobody takes it for left.
                let _ = flock(&self.file, FlockOperation::NonBlockingLockExclusive);
                self.link(OsStr::new(hidden))
            };
            let ((), hidden) = hidden::named(self.folder, name, make)?;
            self.hidden = Some(hidden);
        }
        if let Some(hidden) = &self.hidden {
            renameat(self.folder, hidden.as_str(), self.folder, name)?;
        }
        self.hidden = None;
        Ok(())
    }

    fn link(&self, name: &OsStr) -> Result<()> {
        unnamed::link(&self.file, self.folder, name)
    }
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            let _ = unlinkat(self.folder, hidden.as_str(), AtFlags::empty());
        }
    }
}

/// What is no file, made by `make` in place of the file or link that may be there.
pub(crate) fn replacing(folder: BorrowedFd<'_>, name: &OsStr, make: impl Fn(&OsStr) -> Result<()>) -> Result<()> {
    match make(name) {
        Err(Errno::EXIST) => {}
        done => return done,
    }
    let hidden = hidden::random()?;
    make(OsStr::new(&hidden))?;
    renameat(folder, hidden.as_str(), folder, name).inspect_err(|_| {
        let _ = unlinkat(folder, hidden.as_str(), AtFlags::empty());
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::path::Path;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn it_has_its_name_when_it_is_whole_and_leaves_nothing_where_it_never_is() {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap();
        let named = OsStr::new("name");
        for new in [Whole::new, Whole::hidden] {
            for (text, before) in [("first", vec![]), ("second", vec!["name"])] {
                let mut whole = new(opened.as_fd(), named).unwrap();
                whole.file().write_all(text.as_bytes()).unwrap();
                let hidden: Vec<_> = names(folder.path()).into_iter().filter(|name| name != "name").collect();
                assert_eq!(hidden, whole.hidden.iter().cloned().collect::<Vec<_>>());
                assert_eq!(folder.path().join("name").exists(), !before.is_empty());
                whole.name(OsStr::new("name")).unwrap();
                assert_eq!(fs::read_to_string(folder.path().join("name")).unwrap(), text);
                assert_eq!(names(folder.path()), ["name"]);
            }
            let mut half = new(opened.as_fd(), named).unwrap();
            half.file().write_all(b"ha").unwrap();
            drop(half);
            fs::create_dir(folder.path().join("folder")).unwrap();
            assert_eq!(new(opened.as_fd(), named).unwrap().name(OsStr::new("folder")), Err(Errno::ISDIR));
            fs::remove_dir(folder.path().join("folder")).unwrap();
            assert_eq!(fs::read_to_string(folder.path().join("name")).unwrap(), "second");
            assert_eq!(names(folder.path()), ["name"]);
            fs::remove_file(folder.path().join("name")).unwrap();
        }
    }

    #[test]
    fn what_a_killed_one_left_goes_when_the_same_file_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let opened = File::open(folder.path()).unwrap();
        let named = OsStr::new("name");
        fs::write(folder.path().join("name"), "before").unwrap();
        for new in [Whole::new, Whole::hidden] {
            // Killed between the name that is hidden and the one that it was to have: nothing of it runs any more.
            let mut killed = Whole::hidden(opened.as_fd(), named).unwrap();
            killed.file().write_all(b"half").unwrap();
            killed.hidden = None;
            drop(killed);
            assert_eq!(names(folder.path()).len(), 2);
            // One that is being written is not in the way, and stays.
            let other = Whole::hidden(opened.as_fd(), OsStr::new("other")).unwrap();
            let mut whole = new(opened.as_fd(), named).unwrap();
            whole.file().write_all(b"whole").unwrap();
            whole.name(named).unwrap();
            let hidden = other.hidden.clone().unwrap();
            let mut there = names(folder.path());
            there.sort();
            assert_eq!(there, [hidden.as_str(), "name"]);
            drop(other);
        }
        assert_eq!(fs::read_to_string(folder.path().join("name")).unwrap(), "whole");
        assert_eq!(names(folder.path()), ["name"]);
    }

    #[test]
    fn a_link_that_cannot_be_made_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("name"), "before").unwrap();
        let opened = File::open(folder.path()).unwrap();
        let made = replacing(opened.as_fd(), OsStr::new("name"), |name| {
            if name == "name" { Err(Errno::EXIST) } else { Err(Errno::NOSPC) }
        });
        assert_eq!(made, Err(Errno::NOSPC));
        assert_eq!(fs::read_to_string(folder.path().join("name")).unwrap(), "before");
        assert_eq!(names(folder.path()), ["name"]);
    }
}
