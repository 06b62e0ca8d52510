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
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown, fstat,
    mkdirat, openat, openat2, readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;

use super::place::Spot;
use super::{CarryError, Entry, Kind, PlaceError, Source};
use crate::whole::{There, Whole, replacing, there};

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

/// Whoever owns the folder around it may have put another one in its place meanwhile, and is given none that is not empty, nor
/// another's.
fn is_made_now(folder: &OwnedFd) -> rustix::io::Result<()> {
    if fstat(folder)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::STALE);
    }
    for entry in Dir::read_from(folder)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Err(Errno::STALE);
        }
    }
    Ok(())
}

/// The link that was made, which whoever owns the folder may have put another file in the place of, under a second name.
fn link_made_now(parent: BorrowedFd<'_>, name: &OsStr, target: &[u8]) -> rustix::io::Result<OwnedFd> {
    let link = openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let found = fstat(&link)?;
    let is_link = FileType::from_raw_mode(found.st_mode) == FileType::Symlink && found.st_nlink == 1;
    if is_link && readlinkat(&link, "", Vec::new())?.to_bytes() == target { Ok(link) } else { Err(Errno::STALE) }
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
                if self.keep.owners {
                    is_made_now(&folder)
                        .and_then(|()| {
                            let (uid, gid) = owner(entry);
                            fchown(&folder, uid, gid)
                        })
                        .map_err(self.failed("set the owner of", entry))?;
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
                let mut whole = Whole::new(parent, name).map_err(self.failed("make", entry))?;
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
                let link = link_made_now(parent, name, target).map_err(self.failed("find the link", entry))?;
                if self.keep.owners {
                    let (uid, gid) = owner(entry);
                    chownat(&link, "", uid, gid, AtFlags::EMPTY_PATH)
                        .map_err(self.failed("set the owner of", entry))?;
                }
                let _ = utimensat(&link, "", &times(entry.modified), AtFlags::EMPTY_PATH);
                None
            }
        };
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

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn what_was_put_in_the_place_of_a_link_or_folder_is_nobodys_to_be_given() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let opened = File::open(place.path()).unwrap();
        let link = |name: &str| link_made_now(opened.as_fd(), OsStr::new(name), b"target").map(drop);
        symlink("target", at("link")).unwrap();
        assert_eq!(link("link"), Ok(()));
        // A second name of another's file or link; another link; none.
        fs::write(at("passwd"), "").unwrap();
        fs::hard_link(at("passwd"), at("file")).unwrap();
        symlink("elsewhere", at("other")).unwrap();
        assert_eq!((link("file"), link("other")), (Err(Errno::STALE), Err(Errno::STALE)));
        fs::hard_link(at("link"), at("second")).unwrap();
        assert_eq!((link("second"), link("none")), (Err(Errno::STALE), Err(Errno::NOENT)));

        fs::create_dir(at("folder")).unwrap();
        let folder = || OwnedFd::from(File::open(at("folder")).unwrap());
        assert_eq!(is_made_now(&folder()), Ok(()));
        fs::write(at("folder/file"), "").unwrap();
        assert_eq!(is_made_now(&folder()), Err(Errno::STALE));
    }

    /// Moves what was made away, and another's in its place, whenever it can.
    #[test]
    fn an_owner_of_the_folder_around_gets_nothing_of_anothers_by_being_quick() {
        if !rustix::process::geteuid().is_root() {
            return; // nobody else gives files away
        }
        let place = tempfile::tempdir().unwrap();
        let secret = place.path().join("secret");
        fs::write(&secret, "").unwrap();
        let root = Entry { path: Vec::new(), kind: Kind::Folder, mode: 0o755, uid: 7, gid: 7, modified: 1 };
        let link = Entry { path: b"link".to_vec(), kind: Kind::Link(b"to".to_vec()), ..root.clone() };
        let mut stream = Vec::new();
        root.write(&mut stream).unwrap();
        link.write(&mut stream).unwrap();
        Entry::write_end(&mut stream).unwrap();
        let (over, mut owners) = (std::sync::atomic::AtomicBool::new(false), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let name = place.path().join("made/link");
                    if name.is_symlink() && fs::remove_file(&name).is_ok() {
                        let _ = fs::hard_link(&secret, &name);
                    }
                }
            });
            for _ in 0..200 {
                let source = Source { name: b"made".to_vec(), contents: false };
                let to = place.path().as_os_str().as_bytes();
                let keep = Keep { owners: true, special_bits: false };
                let _ = unpack(&mut stream.as_slice(), &source, to, keep, Bounds { entries: 9, bytes: 9 });
                owners.push(fs::metadata(&secret).map(|there| there.uid()).ok());
                let _ = fs::remove_dir_all(place.path().join("made"));
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(owners.iter().all(|owner| *owner == Some(0)), "{owners:?}");
    }
}
