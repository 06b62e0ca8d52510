//! Files and folders on their way into a box or out of it: a stream of entries, each behind its length, with an end that says so.
//!
//! An entry is a file with its bytes behind it, a folder, or a symbolic link. The first is what is copied, with an empty path; the
//! others lie in it. Nothing else can be written down: no device, no other name of a file, no path that leads elsewhere.
//! Trusts: nothing that is read. Every length is bounded before it is believed, and a stream that breaks off is no whole one.
//!
//! Layout, numbers big-endian: u32 length of the header, 0 at the end; kind u8, mode u32, uid u32, gid u32, seconds since 1970 i64, bytes
//! of data u64, length of the path u16, the path, and the rest is where a link leads. Behind the header the data.

mod pack;
mod place;
mod unpack;

use std::io::{self, Read, Write};

pub use pack::{Packed, pack};
pub use place::{PlaceError, Source};
pub use unpack::{Bounds, Keep, UnpackError, Unpacked, unpack};

/// Longest path within what is copied, and longest target of a link, in bytes: PATH_MAX.
pub const LONGEST_PATH: usize = 4096;
/// Exit status of a program that reads or makes a stream, where what was named is not there.
pub const ABSENT: i32 = 2;
/// Longest name: NAME_MAX.
const LONGEST_NAME: usize = 255;
/// Bytes of a header without path and target.
const FIXED: usize = 31;

/// One file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below what is copied: names with `/` between them, or nothing for itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// When it was changed last, seconds since 1970.
    pub modified: i64,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of so many bytes, which follow.
    File(u64),
    /// A folder.
    Folder,
    /// A symbolic link, and where it leads, which nobody follows.
    Link(Vec<u8>),
}

/// Why a stream is none of ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarryError {
    /// It cannot be read, or ends too early.
    #[error("the stream of files breaks off")]
    Stream(#[source] io::Error),
    /// A header is longer or shorter than any.
    #[error("a header of {found} bytes, expected {FIXED} to {}", FIXED + 2 * LONGEST_PATH)]
    Length {
        /// Bytes stated.
        found: u64,
    },
    /// A kind that there is not.
    #[error("an entry of kind {found}")]
    Kind {
        /// Its number.
        found: u8,
    },
    /// A path or a link's target that is none.
    #[error("an entry whose {what} is no path within what is copied")]
    Path {
        /// Which.
        what: &'static str,
    },
}

/// Whether it names something below: no way up, nothing absolute, no empty or endless name.
pub(crate) fn is_below(path: &[u8]) -> bool {
    let name = |name: &[u8]| {
        !name.is_empty() && name != b"." && name != b".." && name.len() <= LONGEST_NAME && !name.contains(&0)
    };
    path.is_empty() || path.len() < LONGEST_PATH && path.split(|byte| *byte == b'/').all(name)
}

fn leads_somewhere(target: &[u8]) -> bool {
    (1..LONGEST_PATH).contains(&target.len()) && !target.contains(&0)
}

impl Entry {
    /// Reads the next header; nothing at the stream's end. The data of a file is its caller's to read.
    ///
    /// # Errors
    /// [`CarryError`].
    pub fn read(from: &mut impl Read) -> Result<Option<Self>, CarryError> {
        let mut length = [0; 4];
        from.read_exact(&mut length).map_err(CarryError::Stream)?;
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 {
            return Ok(None);
        }
        if !(FIXED..=FIXED + 2 * LONGEST_PATH).contains(&length) {
            return Err(CarryError::Length { found: length as u64 });
        }
        let mut header = vec![0; length];
        from.read_exact(&mut header).map_err(CarryError::Stream)?;
        Self::parse(&header).map(Some)
    }

    fn parse(header: &[u8]) -> Result<Self, CarryError> {
        let short = || CarryError::Length { found: header.len() as u64 };
        let mut rest = header;
        let kind = *take::<1>(&mut rest).ok_or_else(short)?.first().unwrap_or(&0);
        let [mode, uid, gid] = [(); 3].map(|()| take::<4>(&mut rest).map(u32::from_be_bytes));
        let modified = i64::from_be_bytes(take::<8>(&mut rest).ok_or_else(short)?);
        let size = u64::from_be_bytes(take::<8>(&mut rest).ok_or_else(short)?);
        let length = u16::from_be_bytes(take::<2>(&mut rest).ok_or_else(short)?).into();
        let (path, target) = rest.split_at_checked(length).ok_or_else(short)?;
        let kind = match kind {
            1 if target.is_empty() => Kind::File(size),
            2 if target.is_empty() && size == 0 => Kind::Folder,
            3 if size == 0 && leads_somewhere(target) => Kind::Link(target.to_vec()),
            1..=3 => return Err(CarryError::Path { what: "target" }),
            found => return Err(CarryError::Kind { found }),
        };
        if !is_below(path) {
            return Err(CarryError::Path { what: "path" });
        }
        let (Some(mode), Some(uid), Some(gid)) = (mode, uid, gid) else { return Err(short()) };
        Ok(Self { path: path.to_vec(), kind, mode: mode & 0o7777, uid, gid, modified })
    }

    /// Writes the header. The data of a file is its caller's to write.
    ///
    /// # Errors
    /// The stream's; `InvalidInput` for what cannot be read back.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let (kind, size, target) = match &self.kind {
            Kind::File(size) => (1, *size, &[][..]),
            Kind::Folder => (2, 0, &[][..]),
            Kind::Link(target) => (3, 0, target.as_slice()),
        };
        if !is_below(&self.path) || kind == 3 && !leads_somewhere(target) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = u16::try_from(self.path.len()).map_err(io::Error::other)?;
        let mut header = vec![kind];
        for number in [self.mode, self.uid, self.gid] {
            header.extend(number.to_be_bytes());
        }
        header.extend(self.modified.to_be_bytes());
        header.extend(size.to_be_bytes());
        header.extend(length.to_be_bytes());
        header.extend(&self.path);
        header.extend(target);
        to.write_all(&u32::try_from(header.len()).map_err(io::Error::other)?.to_be_bytes())?;
        to.write_all(&header)
    }

    /// Writes the stream's end.
    ///
    /// # Errors
    /// The stream's.
    pub fn write_end(to: &mut impl Write) -> io::Result<()> {
        to.write_all(&[0; 4])?;
        to.flush()
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

#[cfg(test)]
mod tests;
