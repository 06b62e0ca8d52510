//! Reads what is copied, from its own side.
//!
//! Never: follows a link within it. What is no file, folder or link is left out and counted, and so is a file of the kernel's that has no
//! end.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, open, openat, readlinkat, statat};

use super::{Entry, Kind, LONGEST_PATH};

/// Folders within folders.
const DEEPEST: usize = 128;
/// Bytes of a file that states none.
const LONGEST_UNSIZED: u64 = 4 << 20;

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// Devices, sockets, pipes, and what of the kernel's cannot be read to its end: not copied.
    pub left_out: u64,
}

/// Writes what is at `path`, and the end. `follow`: where it is a link itself, what it leads to.
///
/// # Errors
/// Either side's.
pub fn pack(path: &Path, follow: bool, to: &mut impl Write) -> io::Result<Packed> {
    let followed = if follow { std::fs::canonicalize(path)? } else { path.to_owned() };
    // Its folder and its name: a link at the end is then never followed.
    let whole = match (followed.parent(), followed.file_name()) {
        (Some(parent), Some(name)) if !ends_in_folder(&followed) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Some((open(parent, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?, name.to_owned()))
        }
        _ => None,
    };
    let mut packing = Packing { to, packed: Packed::default() };
    if let Some((parent, name)) = whole {
        let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name.as_os_str()))?;
        if !packing.one(parent.as_fd(), &name, &mut Vec::new(), 0)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file, folder or link"));
        }
    } else {
        let folder = open(&followed, FOLDER.difference(OFlags::NOFOLLOW), Mode::empty())?;
        packing.folder(&folder, &mut Vec::new(), 0)?;
    }
    let packed = packing.packed;
    Entry::write_end(to)?;
    Ok(packed)
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// `FOLDER/.`, `FOLDER/` and `..` are folders, wherever links lead.
fn ends_in_folder(path: &Path) -> bool {
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"."
}

struct Packing<'a, W> {
    to: &'a mut W,
    packed: Packed,
}

impl<W: Write> Packing<'_, W> {
    /// False if it cannot be carried.
    fn one(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &std::ffi::CStr,
        path: &mut Vec<u8>,
        depth: usize,
    ) -> io::Result<bool> {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let folder = openat(parent, name, FOLDER, Mode::empty())?;
                self.folder(&folder, path, depth)?;
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(parent, name, flags, Mode::empty())?;
                let stat = rustix::fs::fstat(&file)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(false); // it was replaced meanwhile
                }
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                if size == 0 {
                    return self.without_size(file, &stat, path);
                }
                entry(&stat, path, Kind::File(size)).write(self.to)?;
                self.data(file, size)?;
            }
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::with_capacity(LONGEST_PATH))?;
                entry(&stat, path, Kind::Link(target.into_bytes())).write(self.to)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn folder(&mut self, folder: &OwnedFd, path: &mut Vec<u8>, depth: usize) -> io::Result<()> {
        entry(&rustix::fs::fstat(folder)?, path, Kind::Folder).write(self.to)?;
        if depth == DEEPEST {
            return Err(io::Error::other("folders lie too deep in each other"));
        }
        for found in Dir::read_from(folder)? {
            let found = found?;
            let name = found.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let length = path.len();
            if length > 0 {
                path.push(b'/');
            }
            path.extend(name.to_bytes());
            match self.one(folder.as_fd(), name, path, depth + 1) {
                Ok(true) => {}
                Ok(false) => self.packed.left_out += 1,
                // It went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            path.truncate(length);
        }
        Ok(())
    }

    /// Empty, or one of the kernel's (`/proc`, `/sys`), which says 0 whatever it has: it is read first.
    fn without_size(&mut self, file: OwnedFd, stat: &Stat, path: &[u8]) -> io::Result<bool> {
        match crate::input::all(File::from(file), LONGEST_UNSIZED) {
            Ok(bytes) => {
                entry(stat, path, Kind::File(bytes.len() as u64)).write(self.to)?;
                self.to.write_all(&bytes)?;
                Ok(true)
            }
            // It has no end, or is not there to be read. Whoever named it is told.
            Err(error) if path.is_empty() => Err(error),
            Err(_) => Ok(false),
        }
    }

    /// Exactly so many bytes: of a file that grows no more, of one that shrinks zeros in their place.
    fn data(&mut self, file: OwnedFd, size: u64) -> io::Result<()> {
        let copied = io::copy(&mut File::from(file).take(size), self.to)?;
        io::copy(&mut io::repeat(0).take(size - copied), self.to)?;
        Ok(())
    }
}

fn entry(stat: &Stat, path: &[u8], kind: Kind) -> Entry {
    let (uid, gid, modified) = (stat.st_uid, stat.st_gid, stat.st_mtime);
    Entry { path: path.to_vec(), kind, mode: stat.st_mode & 0o7777, uid, gid, modified }
}
