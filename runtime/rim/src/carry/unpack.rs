//! Makes what is copied, on the other side.
//!
//! Trusts: nothing of the stream. What it makes lies in the place it was given: every folder is found from there, beneath it and
//! through no link, and a link is made and never followed. A file or link that stands in the way is replaced, by a file once that is
//! whole; no folder is replaced by a file nor the other way round, and no device, pipe or socket by anything. A folder that is there
//! keeps its mode, owner and time.
//! Source: openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, mkdirat, openat,
    openat2, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::place::Spot;
use super::whole::{There, Whole, replacing, there};
use super::{CarryError, Entry, Kind, PlaceError, Source};

/// How much may come. More is an error, never a shorter copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of files together.
    pub bytes: u64,
}

impl Bounds {
    /// Counts an entry among what came before it.
    ///
    /// # Errors
    /// [`UnpackError::TooMuch`].
    pub fn count(&self, entry: &Entry, done: &mut Unpacked) -> Result<(), UnpackError> {
        let Self { entries, bytes } = *self;
        done.entries += 1;
        if done.entries > entries {
            return Err(UnpackError::TooMuch { what: "files", limit: entries });
        }
        if let Kind::File(size) = entry.kind {
            let sum = done.bytes.checked_add(size).filter(|sum| *sum <= bytes);
            done.bytes = sum.ok_or(UnpackError::TooMuch { what: "bytes", limit: bytes })?;
        }
        Ok(())
    }
}

/// What of an entry is kept besides its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Owner and group; else they are whoever copies.
    pub owners: bool,
    /// Set-uid, set-gid and sticky bits.
    pub special_bits: bool,
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// Why not all of it was made. What was made before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// The stream is none.
    #[error(transparent)]
    Carry(#[from] CarryError),
    /// Nothing can go where it should.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// What lies in something came without it, or a second time.
    #[error("the entries come in no order that there is")]
    Order,
    /// There is more than was asked for.
    #[error("there are more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// The system refuses.
    #[error("cannot {what} {path:?}")]
    Make {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
}

impl UnpackError {
    /// The folder that was named is not there.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Place(PlaceError::Absent(_)) => true,
            Self::Place(PlaceError::Parent(_, error)) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

/// Makes all of `from` at `to`.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(
    from: &mut impl Read,
    source: &Source,
    to: &[u8],
    keep: Keep,
    bounds: Bounds,
) -> Result<Unpacked, UnpackError> {
    let root = Entry::read(from)?.filter(|entry| entry.path.is_empty()).ok_or(UnpackError::Order)?;
    let Spot { folder, name, shown } = source.spot(&root, to)?;
    let mut making = Making { keep, shown, done: Unpacked::default(), later: Vec::new(), room: ROOM };
    bounds.count(&root, &mut making.done)?;
    let within = match name {
        None => folder,
        Some(name) => match making.make(folder.as_fd(), &name, &root, from)? {
            Some(folder) => folder,
            None => return if Entry::read(from)?.is_none() { Ok(making.done) } else { Err(UnpackError::Order) },
        },
    };
    while let Some(entry) = Entry::read(from)? {
        if entry.path.is_empty() {
            return Err(UnpackError::Order);
        }
        bounds.count(&entry, &mut making.done)?;
        let (parent, name) = match entry.path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (entry.path.get(..at).unwrap_or_default(), entry.path.get(at + 1..).unwrap_or_default()),
            None => (&[][..], entry.path.as_slice()),
        };
        let parent = beneath(within.as_fd(), parent).map_err(making.failed("find the folder of", &entry))?;
        making.make(parent.as_fd(), OsStr::from_bytes(name), &entry, from)?;
    }
    Ok(making.finish(within.as_fd()))
}

/// Bytes of paths that wait for their folder's end.
const ROOM: usize = 8 << 20;

struct Making {
    keep: Keep,
    /// What the first entry becomes.
    shown: PathBuf,
    done: Unpacked,
    /// Folders that let nobody in, or whose time is still to be set: last, when nothing more goes into them.
    later: Vec<(Vec<u8>, Mode, i64)>,
    room: usize,
}

/// A folder below, found through no link.
fn beneath(within: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    openat2(within, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

impl Making {
    fn path(&self, entry: &Entry) -> PathBuf {
        if entry.path.is_empty() { self.shown.clone() } else { self.shown.join(OsStr::from_bytes(&entry.path)) }
    }

    fn failed<E: Into<io::Error>>(&self, what: &'static str, entry: &Entry) -> impl FnOnce(E) -> UnpackError {
        let path = self.path(entry);
        move |error| UnpackError::Make { what, path, error: error.into() }
    }

    /// Before much is sent for nothing.
    fn make_way(&self, parent: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> Result<(), UnpackError> {
        match there(parent, name).map_err(self.failed("make", entry))? {
            There::Free => Ok(()),
            There::Folder => Err(self.failed("make", entry)(Errno::ISDIR)),
            There::Other => Err(PlaceError::NoFile(self.path(entry)).into()),
        }
    }

    /// The folder, if it is one.
    fn make(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        from: &mut impl Read,
    ) -> Result<Option<OwnedFd>, UnpackError> {
        let bits = if self.keep.special_bits { 0o7777 } else { 0o777 };
        let mode = Mode::from_raw_mode(entry.mode & bits);
        let folder = match &entry.kind {
            Kind::Folder => {
                let is_new = match mkdirat(parent, name, Mode::RWXU) {
                    Ok(()) => true,
                    Err(Errno::EXIST) => false,
                    Err(error) => return Err(self.failed("make the folder", entry)(error)),
                };
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder =
                    openat(parent, name, flags, Mode::empty()).map_err(self.failed("open the folder", entry))?;
                if !is_new {
                    return Ok(Some(folder));
                }
                let now = if entry.path.len() < self.room {
                    self.room -= entry.path.len();
                    self.later.push((entry.path.clone(), mode, entry.modified));
                    mode | Mode::RWXU
                } else {
                    mode
                };
                fchmod(&folder, now).map_err(self.failed("set the mode of", entry))?;
                Some(folder)
            }
            Kind::File(size) => {
                self.make_way(parent, name, entry)?;
                let mut whole = Whole::new(parent).map_err(self.failed("make", entry))?;
                let file = whole.file();
                let copied = io::copy(&mut from.take(*size), file).map_err(self.failed("write", entry))?;
                if copied != *size {
                    return Err(CarryError::Stream(io::ErrorKind::UnexpectedEof.into()).into());
                }
                if self.keep.owners {
                    let (uid, gid) = owner(entry);
                    fchown(&*file, uid, gid).map_err(self.failed("set the owner of", entry))?;
                }
                // Behind the owner: a change of it takes special bits away.
                fchmod(&*file, mode).map_err(self.failed("set the mode of", entry))?;
                let _ = rustix::fs::futimens(&*file, &times(entry.modified));
                whole.name(name).map_err(self.failed("make", entry))?;
                return Ok(None);
            }
            Kind::Link(target) => {
                self.make_way(parent, name, entry)?;
                let make = |name: &OsStr| symlinkat(target.as_slice(), parent, name);
                replacing(parent, name, make).map_err(self.failed("make the link", entry))?;
                let _ = utimensat(parent, name, &times(entry.modified), AtFlags::SYMLINK_NOFOLLOW);
                None
            }
        };
        if self.keep.owners {
            let (uid, gid) = owner(entry);
            chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(self.failed("set the owner of", entry))?;
        }
        Ok(folder)
    }

    fn finish(self, within: BorrowedFd<'_>) -> Unpacked {
        // From the inside out: an outer one may let nobody in afterwards.
        for (path, mode, modified) in self.later.iter().rev() {
            let Ok(folder) = beneath(within, path) else { continue };
            let _ = fchmod(&folder, *mode);
            let _ = rustix::fs::futimens(&folder, &times(*modified));
        }
        self.done
    }
}

fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

fn times(modified: i64) -> Timestamps {
    let at = Timespec { tv_sec: modified, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}
