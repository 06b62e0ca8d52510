//! Files that are not finished.
//!
//! One has no name as long as the file system can do without: whoever is interrupted, or killed, leaves nothing. Else it has one in `tmp/`,
//! where the next garbage collection finds what a killed one left.

use coffer_rim::unnamed;
use rustix::fs::CWD;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempPath};

/// A private file on its way. It goes when it is dropped, unless it was said to stay.
#[derive(Debug)]
pub(crate) struct Scratch {
    file: File,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Nowhere; it would be in this folder.
    Nowhere(PathBuf),
    Named(TempPath),
}

impl Scratch {
    /// In this folder.
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        if let Some(file) = unnamed::new(CWD, folder) {
            return Ok(Self { file, at: At::Nowhere(folder.to_owned()) });
        }
        let (file, path) = NamedTempFile::new_in(folder)?.into_parts();
        Ok(Self::named(file, path))
    }

    /// One that has a name.
    pub(crate) const fn named(file: File, path: TempPath) -> Self {
        Self { file, at: At::Named(path) }
    }

    /// Where it is, or would be: for whoever reads an error of it.
    pub(crate) fn path(&self) -> &Path {
        match &self.at {
            At::Nowhere(folder) => folder,
            At::Named(path) => path,
        }
    }

    pub(crate) const fn as_file(&self) -> &File {
        &self.file
    }

    pub(crate) const fn as_file_mut(&mut self) -> &mut File {
        &mut self.file
    }

    /// It, from its beginning, as another reader has it.
    pub(crate) fn reopened(&self) -> io::Result<File> {
        File::open(unnamed::way_to(&self.file))
    }

    /// Whether it stays when it is dropped, where it has a name.
    pub(crate) fn stays(&mut self, stays: bool) {
        if let At::Named(path) = &mut self.at {
            path.disable_cleanup(stays);
        }
    }

    /// With a name in its folder and closed, for whoever has too many of them open.
    pub(crate) fn shelved(self) -> io::Result<TempPath> {
        match self.at {
            At::Named(path) => Ok(path),
            At::Nowhere(folder) => name_in(&folder, &self.file),
        }
    }

    /// Gives it its place, on the same file system, and takes that of a file which may be there.
    pub(crate) fn persist(self, to: &Path) -> io::Result<()> {
        let path = match self.at {
            At::Named(path) => path,
            At::Nowhere(folder) => match unnamed::link(&self.file, CWD, to) {
                Ok(()) => return Ok(()),
                // A name can only be taken by another one.
                Err(Errno::EXIST) => name_in(&folder, &self.file)?,
                Err(error) => return Err(error.into()),
            },
        };
        path.persist(to).map_err(|error| error.error)
    }
}

impl Write for Scratch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Under a name of its own in a folder, from which it goes when that is dropped.
fn name_in(folder: &Path, file: &File) -> io::Result<TempPath> {
    let link = |path: &Path| unnamed::link(file, CWD, path).map_err(Into::into);
    tempfile::Builder::new().make_in(folder, link).map(NamedTempFile::into_temp_path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn names(folder: &Path) -> Vec<String> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn whoever_is_killed_leaves_nothing_and_what_is_whole_has_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (tmp, to) = (dir.path().join("tmp"), dir.path().join("blob"));
        std::fs::create_dir(&tmp).unwrap();
        for text in ["first", "second"] {
            let mut scratch = Scratch::new(&tmp).unwrap();
            assert!(matches!(scratch.at, At::Nowhere(_)), "this file system can do without names");
            scratch.write_all(text.as_bytes()).unwrap();
            // Nothing runs for one that is killed.
            assert!(names(&tmp).is_empty());
            let mut read = String::new();
            scratch.reopened().unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
            scratch.persist(&to).unwrap();
            assert_eq!((std::fs::read_to_string(&to).unwrap().as_str(), names(&tmp).len()), (text, 0));
        }
        let mut scratch = Scratch::new(&tmp).unwrap();
        scratch.write_all(b"third").unwrap();
        let shelved = scratch.shelved().unwrap();
        assert_eq!(std::fs::read(&shelved).unwrap(), b"third");
        let again = Scratch::named(File::open(&shelved).unwrap(), shelved);
        again.persist(&to).unwrap();
        assert_eq!((std::fs::read(&to).unwrap(), names(&tmp).len()), (b"third".to_vec(), 0));
        drop(Scratch::new(&tmp).unwrap().shelved().unwrap());
        assert!(names(&tmp).is_empty());
        assert!(Scratch::new(&dir.path().join("none")).is_err());
    }
}
