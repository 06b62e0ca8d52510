//! Where a copy goes, in Docker's way: into a folder that is there, under its own name or another.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};

use super::{Entry, Kind};

/// What is copied, as its own side names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name; where the destination is a folder, it goes there under it.
    pub name: Vec<u8>,
    /// Not the folder itself but what is in it (`FOLDER/.`).
    pub contents: bool,
}

/// Why nothing can go there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// A folder is copied, and something else is there.
    #[error("{0:?} is there, and is no folder")]
    NoFolder(PathBuf),
    /// A file is copied, and a device, pipe or socket is there: to replace that is never what was meant.
    #[error("{0:?} is there, and is no file")]
    NoFile(PathBuf),
    /// A link is there, and what it leads to is not, or cannot be found: to replace it is never what was meant.
    #[error("{0:?} is a symbolic link, and what it leads to is not there: name that")]
    NoTarget(PathBuf),
    /// It ends in `/` and is not there.
    #[error("there is no folder {0:?}")]
    Absent(PathBuf),
    /// It has no name.
    #[error("what is copied has no name of its own: name the file or folder it becomes")]
    Nameless,
    /// The folder it would lie in.
    #[error("cannot open the folder {0:?}")]
    Parent(PathBuf, #[source] io::Error),
}

/// A place for the first entry.
#[derive(Debug)]
pub(super) struct Spot {
    /// The folder it lies in, or which it is.
    pub(super) folder: OwnedFd,
    /// Its name there; none where its contents go into the folder itself.
    pub(super) name: Option<OsString>,
    /// What it becomes, in the words of whoever named the place.
    pub(super) shown: PathBuf,
}

impl Source {
    /// Of a path as somebody wrote it.
    pub fn of(path: &[u8]) -> Self {
        let trimmed = path.strip_suffix(b"/.").or_else(|| (path == b".").then_some(&b""[..]));
        let mut name = trimmed.unwrap_or(path);
        while let Some(shorter) = name.strip_suffix(b"/") {
            name = shorter;
        }
        let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let whole = trimmed.is_some() || name.is_empty() || name == b".." || name == b".";
        Self { name: if whole { Vec::new() } else { name.to_vec() }, contents: whole }
    }

    /// Where `root` goes when it is copied to `to`. Links in `to` itself are followed: whoever copies named it.
    pub(super) fn spot(&self, root: &Entry, to: &[u8]) -> Result<Spot, PlaceError> {
        let to = Path::new(OsStr::from_bytes(to));
        let is_folder = root.kind == Kind::Folder;
        let ends_in_slash = to.as_os_str().as_bytes().ends_with(b"/");
        if to.is_dir() {
            if self.contents && is_folder {
                return Ok(Spot { folder: opened(to)?, name: None, shown: to.into() });
            }
            let name = self.named()?;
            return Ok(Spot { folder: opened(to)?, shown: to.join(&name), name: Some(name) });
        }
        let there = std::fs::canonicalize(to).ok();
        match there {
            None if is_link(to) => Err(PlaceError::NoTarget(to.into())),
            Some(_) if is_folder || ends_in_slash => Err(PlaceError::NoFolder(to.into())),
            None if ends_in_slash && !is_folder => Err(PlaceError::Absent(to.into())),
            there => {
                let at = match there {
                    Some(there) if !there.is_file() => return Err(PlaceError::NoFile(to.into())),
                    there => there.unwrap_or_else(|| to.into()),
                };
                let parent = at.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
                let name = at.file_name().ok_or_else(|| PlaceError::Absent(to.into()))?;
                Ok(Spot { folder: opened(parent)?, name: Some(name.to_owned()), shown: to.into() })
            }
        }
    }

    fn named(&self) -> Result<OsString, PlaceError> {
        let is_name = !self.name.is_empty() && !self.name.contains(&b'/') && super::is_below(&self.name);
        if is_name { Ok(OsString::from_vec(self.name.clone())) } else { Err(PlaceError::Nameless) }
    }
}

/// The path itself, whether or not it ends in `/`.
fn is_link(path: &Path) -> bool {
    let mut path = path.as_os_str().as_bytes();
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    Path::new(OsStr::from_bytes(path)).is_symlink()
}

fn opened(folder: &Path) -> Result<OwnedFd, PlaceError> {
    open(folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| PlaceError::Parent(folder.into(), error.into()))
}
