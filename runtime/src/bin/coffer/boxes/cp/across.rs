//! A stream of files from one box into another.
//!
//! Trusts: nothing of it. Each entry is read here before it is written there, bounded, and without set-uid, set-gid and sticky bits: what
//! one box says gives nobody rights in another.

use std::io::{self, Read, Write};

use coffer_rim::carry::{Bounds, Entry, Kind, Unpacked};

use super::nowhere::of_unpacking;
use crate::error::{Class, Classify as _, CliError};

/// Permission bits that go across.
const PLAIN: u32 = 0o777;

/// Hands it on, to its end.
pub fn pass(from: &mut impl Read, to: &mut impl Write, bounds: Bounds) -> Result<Unpacked, CliError> {
    let sent = |result: io::Result<()>| result.class_while(Class::Unreachable, "cannot send to the box");
    let mut done = Unpacked::default();
    while let Some(entry) = Entry::read(from).class(Class::Config)? {
        bounds.count(&entry, &mut done).map_err(|error| of_unpacking(&error))?;
        let size = if let Kind::File(size) = entry.kind { size } else { 0 };
        sent(Entry { mode: entry.mode & PLAIN, ..entry }.write(to))?;
        let mut data = from.take(size);
        sent(io::copy(&mut data, to).map(drop))?;
        if data.limit() > 0 {
            return Err(CliError::new(Class::Config, "the stream of files breaks off"));
        }
    }
    sent(Entry::write_end(to))?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(end: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let entry = |path: &[u8], kind, mode| Entry { path: path.into(), kind, mode, uid: 5, gid: 6, modified: 7 };
        entry(b"", Kind::Folder, 0o1777).write(&mut bytes).unwrap();
        entry(b"tool", Kind::File(3), 0o6755).write(&mut bytes).unwrap();
        bytes.extend(b"abc");
        entry(b"link", Kind::Link(b"/etc/passwd".to_vec()), 0o777).write(&mut bytes).unwrap();
        if end {
            Entry::write_end(&mut bytes).unwrap();
        }
        bytes
    }

    const BOUNDS: Bounds = Bounds { entries: 3, bytes: 3 };

    #[test]
    fn all_of_it_goes_across_but_for_what_gives_rights() {
        let (whole, mut there) = (stream(true), Vec::new());
        let done = pass(&mut whole.as_slice(), &mut there, BOUNDS).unwrap();
        assert_eq!((done.entries, done.bytes), (3, 3));
        let mut rest = there.as_slice();
        let folder = Entry::read(&mut rest).unwrap().unwrap();
        let tool = Entry::read(&mut rest).unwrap().unwrap();
        assert_eq!((folder.mode, tool.mode, tool.uid, &rest[..3]), (0o777, 0o755, 5, &b"abc"[..]));
        rest = &rest[3..];
        assert_eq!(Entry::read(&mut rest).unwrap().unwrap().kind, Kind::Link(b"/etc/passwd".to_vec()));
        assert!(Entry::read(&mut rest).unwrap().is_none() && rest.is_empty());
    }

    #[test]
    fn what_breaks_off_or_is_too_much_is_no_whole_there_either() {
        let (whole, broken) = (stream(true), stream(false));
        for bounds in [Bounds { entries: 2, ..BOUNDS }, Bounds { bytes: 2, ..BOUNDS }] {
            assert!(pass(&mut whole.as_slice(), &mut Vec::new(), bounds).is_err());
        }
        let mut there = Vec::new();
        assert!(pass(&mut broken.as_slice(), &mut there, BOUNDS).is_err());
        assert_eq!(there.len(), broken.len(), "no end is written");
        let inside = whole.len() - 70;
        assert!(pass(&mut &whole[..inside], &mut Vec::new(), BOUNDS).is_err());
    }
}
