//! Reads tar streams as image layers use them: ustar, GNU long names, PAX.
//!
//! The header fields come from the `tar` crate; the walk over the stream is ours because every length in it is a claim
//! that has to be limited before it is believed.
//! Source: POSIX.1-2017 pax, "pax Interchange Format"; GNU tar manual, "Basic Tar Format".

mod error;
mod sparse;

use crate::tree::show;
pub use error::TarError;
use error::{MAX_EXTENDED, number};
pub use sparse::Part;
use sparse::{Sparse, Words};
use std::collections::BTreeMap;
use std::io::{self, Read};
use tar::{EntryType, Header};

/// A tar stream, read entry by entry; [`Read`] gives the data of the current one.
pub struct Archive<R> {
    inner: R,
    /// Data of the current entry not yet read.
    remaining: u64,
    /// Zero bytes behind it.
    padding: u64,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path as written; may start with `/` or `./`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970; earlier ones become 0.
    pub mtime: u64,
    /// Nanoseconds of it.
    pub mtime_nsec: u32,
    /// Extended attributes by full name (`SCHILY.xattr.` records).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Bytes of the file, holes included; 0 for anything but a file.
    pub size: u64,
    /// Which parts of it the stream has, in order; `None` where it has all of it.
    pub parts: Option<Vec<Part>>,
}

/// Kind of a tar entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Regular file, with data.
    File,
    /// Another name for the file at this path.
    HardLink(Vec<u8>),
    /// Symbolic link.
    Symlink(Vec<u8>),
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
    /// Character device: major, minor.
    CharDevice(u32, u32),
    /// Block device: major, minor.
    BlockDevice(u32, u32),
}

const BLOCK: usize = 512;

/// What extended headers say about the next entry.
#[derive(Default)]
struct Extended {
    /// Bytes of them so far; bounds everything else here.
    read: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(u64, u32)>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse: Words,
}

impl<R: Read> Archive<R> {
    /// Starts at the first header.
    pub fn new(inner: R) -> Self {
        Self { inner, remaining: 0, padding: 0 }
    }

    /// The next entry; what is left of the current one is skipped. `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extended = Extended::default();
        loop {
            let left = self.remaining.saturating_add(self.padding);
            self.skip(left)?;
            (self.remaining, self.padding) = (0, 0);
            let Some(block) = self.header()? else { return Ok(None) };
            let filled = fill_empty_fields(block);
            let header = Header::from_byte_slice(&filled);
            let name = header.path_bytes();
            let field = |field| {
                let path = show(&name);
                move |_| TarError::Field { path, field }
            };
            let found = header.cksum().map_err(field("checksum"))?;
            let expected = checksum(&block);
            if found != expected {
                return Err(TarError::Checksum { found, expected });
            }
            let size = header.entry_size().map_err(field("size"))?;
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(self.long_name(size, &mut extended.read)?),
                EntryType::GNULongLink => extended.link = Some(self.long_name(size, &mut extended.read)?),
                EntryType::XHeader => {
                    let records = self.extended_header(size, &mut extended.read)?;
                    parse_pax(&records, &mut extended)?;
                }
                // It is about all entries, and says nothing we use.
                EntryType::XGlobalHeader => self.begin_data(size)?,
                _ => return self.entry(header, size, extended).map(Some),
            }
        }
    }

    /// Reads everything behind the archive's end, so that the whole stream was seen.
    pub fn drain(&mut self) -> Result<(), TarError> {
        io::copy(&mut self.inner, &mut io::sink()).map(drop).map_err(TarError::Read)
    }

    /// The stream below.
    pub fn into_inner(self) -> R {
        self.inner
    }

    fn entry(&mut self, header: &Header, size: u64, mut extended: Extended) -> Result<Entry, TarError> {
        let path = extended.sparse.name.take().or(extended.path).unwrap_or_else(|| header.path_bytes().into_owned());
        let field = |field| {
            let path = show(&path);
            move |_: io::Error| TarError::Field { path, field }
        };
        let missing = |field| TarError::Field { path: show(&path), field };
        let link = || {
            extended
                .link
                .clone()
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default()
        };
        let device = || -> Result<(u32, u32), TarError> {
            let major = header.device_major().map_err(field("device"))?;
            let minor = header.device_minor().map_err(field("device"))?;
            Ok((major.unwrap_or(0), minor.unwrap_or(0)))
        };
        let unsupported =
            || TarError::Unsupported { path: show(&path), found: char::from(header.entry_type().as_byte()) };
        let kind = match header.entry_type() {
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => EntryKind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => EntryKind::File,
            _ if extended.sparse.any() => return Err(unsupported()),
            EntryType::Link => EntryKind::HardLink(link()),
            EntryType::Symlink => EntryKind::Symlink(link()),
            EntryType::Directory => EntryKind::Directory,
            EntryType::Fifo => EntryKind::Fifo,
            EntryType::Char => device().map(|(major, minor)| EntryKind::CharDevice(major, minor))?,
            EntryType::Block => device().map(|(major, minor)| EntryKind::BlockDevice(major, minor))?,
            _ => return Err(unsupported()),
        };
        let id = |given: Option<u64>, own: io::Result<u64>, name| {
            let value = match given {
                Some(value) => value,
                None => own.map_err(field(name))?,
            };
            u32::try_from(value).map_err(|_| missing(name))
        };
        let uid = id(extended.uid, header.uid(), "owner")?;
        let gid = id(extended.gid, header.gid(), "group")?;
        let mode = header.mode().map_err(field("mode"))?;
        let (mtime, mtime_nsec) = match extended.mtime {
            Some(time) => time,
            None => (header.mtime().map_err(field("time"))?, 0),
        };
        // As Go's archive/tar, which writes nearly all layers, reads them: only files have data.
        let stored = if kind == EntryKind::File { extended.size.unwrap_or(size) } else { 0 };
        self.begin_data(stored)?;
        let sparse = match header.entry_type() {
            EntryType::GNUSparse => {
                let more = |block: &mut [u8]| self.exactly(block, &mut extended.read);
                Some(Sparse::of_gnu(header, &path, more)?)
            }
            _ if extended.sparse.any() => {
                let front = |block: &mut [u8]| {
                    self.remaining = self.remaining.checked_sub(block.len() as u64).ok_or(TarError::Pax)?;
                    self.exactly(block, &mut extended.read)
                };
                Some(Sparse::of_pax(&extended.sparse, stored, front)?)
            }
            _ => None,
        };
        let (size, parts) = match sparse {
            Some(sparse) if !sparse.fits(self.remaining) => return Err(missing("map of holes")),
            Some(Sparse { size, parts }) => (size, Some(parts)),
            None => (stored, None),
        };
        Ok(Entry {
            path,
            kind,
            mode: (mode & 0o7777) as u16,
            uid,
            gid,
            mtime,
            mtime_nsec,
            xattrs: extended.xattrs,
            size,
            parts,
        })
    }

    fn begin_data(&mut self, size: u64) -> Result<(), TarError> {
        let padded = size.checked_next_multiple_of(BLOCK as u64).ok_or(TarError::Truncated)?;
        (self.remaining, self.padding) = (size, padded - size);
        Ok(())
    }

    /// The next header block; `None` at a zero block or at the end of the stream.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TarError::Read(error)),
            }
        }
        Ok((block != [0; BLOCK]).then_some(block))
    }

    /// `read`: bytes of extended headers this entry has had.
    fn extended_header(&mut self, size: u64, read: &mut u64) -> Result<Vec<u8>, TarError> {
        let found = read.saturating_add(size);
        if found > MAX_EXTENDED {
            return Err(TarError::ExtendedTooLong { found });
        }
        *read = found;
        self.begin_data(size)?;
        let mut bytes = Vec::with_capacity(size as usize);
        self.read_to_end(&mut bytes).map_err(TarError::Read)?;
        if bytes.len() as u64 == size { Ok(bytes) } else { Err(TarError::Truncated) }
    }

    fn long_name(&mut self, size: u64, read: &mut u64) -> Result<Vec<u8>, TarError> {
        let mut name = self.extended_header(size, read)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    /// Fills a buffer from the stream below, whatever entry that is about. `read`: as in [`Archive::extended_header`].
    fn exactly(&mut self, buffer: &mut [u8], read: &mut u64) -> Result<(), TarError> {
        *read = read.saturating_add(buffer.len() as u64);
        if *read > MAX_EXTENDED {
            return Err(TarError::ExtendedTooLong { found: *read });
        }
        self.inner.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => TarError::Truncated,
            _ => TarError::Read(error),
        })
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.inner).take(count), &mut io::sink()).map_err(TarError::Read)?;
        if skipped == count { Ok(()) } else { Err(TarError::Truncated) }
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = (buffer.len() as u64).min(self.remaining) as usize;
        if want == 0 {
            return Ok(0);
        }
        let count = self.inner.read(&mut buffer[..want])?;
        self.remaining -= count as u64;
        Ok(count)
    }
}

/// Number fields left empty are 0, as other readers have it. The size is not among them.
fn fill_empty_fields(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    for field in [100..108, 108..116, 116..124, 136..148, 329..337, 337..345] {
        let field = &mut block[field];
        if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
            field[0] = b'0';
        }
    }
    block
}

/// Sum of the header's bytes, its checksum field counted as spaces.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum()
}

/// Records `<length> <key>=<value>\n`.
fn parse_pax(mut bytes: &[u8], extended: &mut Extended) -> Result<(), TarError> {
    while !bytes.is_empty() {
        let space = bytes.iter().take(20).position(|byte| *byte == b' ').ok_or(TarError::Pax)?;
        let length: usize = number(&bytes[..space])?;
        if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
            return Err(TarError::Pax);
        }
        let record = &bytes[space + 1..length - 1];
        bytes = &bytes[length..];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(TarError::Pax)?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => extended.path = Some(value.to_vec()),
            b"linkpath" => extended.link = Some(value.to_vec()),
            b"size" => extended.size = Some(number(value)?),
            b"uid" => extended.uid = Some(number(value)?),
            b"gid" => extended.gid = Some(number(value)?),
            b"mtime" => extended.mtime = Some(pax_time(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    extended.xattrs.insert(name.to_vec(), value.to_vec());
                } else if let Some(word) = key.strip_prefix(b"GNU.sparse.") {
                    extended.sparse.take(word, value)?;
                }
            }
        }
    }
    Ok(())
}

/// `[-]seconds[.fraction]`; times before 1970 become 1970, digits below a nanosecond are cut.
fn pax_time(value: &[u8]) -> Result<(u64, u32), TarError> {
    if let Some(before) = value.strip_prefix(b"-") {
        return pax_time(before).map(|_| (0, 0));
    }
    let mut parts = value.splitn(2, |byte| *byte == b'.');
    let seconds = number(parts.next().unwrap_or_default())?;
    let mut nanoseconds = [b'0'; 9];
    let fraction = parts.next().unwrap_or_default();
    let digits = fraction.len().min(9);
    nanoseconds[..digits].copy_from_slice(&fraction[..digits]);
    Ok((seconds, number(&nanoseconds)?))
}

#[cfg(test)]
mod tests;
