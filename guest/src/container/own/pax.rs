//! Headers of a tar stream: ustar, with a pax header before one that does not fit.
//!
//! Source: POSIX.1-2017 pax, "ustar Interchange Format", "pax Extended Header"; attributes as GNU tar and Go's archive/tar name them
//! (`SCHILY.xattr.`).

use std::io::{self, Write};

const BLOCK: usize = 512;
/// Longest name and target that a header holds.
const LONGEST: usize = 100;
/// Least number that a field of eight, or twelve, octal digits with an end does not hold.
const TOO_LARGE: [u64; 2] = [1 << 21, 1 << 33];

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File = b'0' as isize,
    /// Another name of a file that came before.
    OtherName = b'1' as isize,
    Link = b'2' as isize,
    Folder = b'5' as isize,
    Pipe = b'6' as isize,
    /// What the next header does not hold.
    More = b'x' as isize,
}

/// A header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: Kind,
    pub(super) target: &'a [u8],
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Bytes that follow.
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) modified: u64,
    pub(super) attributes: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> Header<'a> {
    /// Of something that is root's, and has no bytes.
    pub(super) const fn new(path: &'a [u8], kind: Kind) -> Self {
        let (mode, uid, gid, size, modified) = (0o644, 0, 0, 0, 0);
        Self { path, kind, target: b"", mode, uid, gid, size, modified, attributes: &[] }
    }

    /// Writes it, and what has to stand before it.
    pub(super) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut more = Vec::new();
        for (key, value) in [(&b"path"[..], self.path), (b"linkpath", self.target)] {
            if value.len() > LONGEST {
                record(&mut more, key, value);
            }
        }
        let numbers = [("uid", u64::from(self.uid), 0), ("gid", self.gid.into(), 0), ("size", self.size, 1)];
        for (key, number, field) in numbers.into_iter().chain([("mtime", self.modified, 1)]) {
            if TOO_LARGE.get(field).is_some_and(|most| number >= *most) {
                record(&mut more, key.as_bytes(), number.to_string().as_bytes());
            }
        }
        for (name, value) in self.attributes {
            record(&mut more, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        if !more.is_empty() {
            let size = more.len() as u64;
            to.write_all(&Header { size, ..Header::new(b"pax", Kind::More) }.block())?;
            more.resize(more.len().next_multiple_of(BLOCK), 0);
            to.write_all(&more)?;
        }
        to.write_all(&self.block())
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = block.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(0, self.path.get(..self.path.len().min(LONGEST)).unwrap_or_default());
        put(157, self.target.get(..self.target.len().min(LONGEST)).unwrap_or_default());
        // One that does not fit stands in the header before.
        let fits = |number: u64, field: usize| if number < TOO_LARGE[field] { number } else { 0 };
        put(100, format!("{:07o}", self.mode).as_bytes());
        put(108, format!("{:07o}", fits(self.uid.into(), 0)).as_bytes());
        put(116, format!("{:07o}", fits(self.gid.into(), 0)).as_bytes());
        put(124, format!("{:011o}", fits(self.size, 1)).as_bytes());
        put(136, format!("{:011o}", fits(self.modified, 1)).as_bytes());
        put(148, b"        ");
        put(156, &[self.kind as u8]);
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// `LENGTH KEY=VALUE` and a line feed, the length its own digits included.
fn record(to: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    to.extend(format!("{length} ").as_bytes());
    to.extend(key);
    to.push(b'=');
    to.extend(value);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for length in [1, 5, 6, 7, 90, 91, 92, 93, 94, 95, 990, 991, 992] {
            let mut bytes = Vec::new();
            record(&mut bytes, b"k", &vec![b'v'; length]);
            let stated = std::str::from_utf8(&bytes).unwrap().split(' ').next().unwrap();
            assert_eq!(stated.parse::<usize>().unwrap(), bytes.len(), "{length}");
        }
    }
}
