//! The list of what a box has that its image has not, as a guest tells it.
//!
//! Trusts: nothing of it. What is no such list, or longer than one gets, is an error; a path is whatever bytes the guest says.

use std::fmt;

/// Bytes of a list that are read.
pub const LONGEST: u64 = 64 << 20;

/// What became of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The image has it not.
    Added,
    /// The image has it otherwise.
    Changed,
    /// The image alone has it.
    Deleted,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Added, Self::Changed, Self::Deleted];

    /// Docker's letter.
    pub const fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub kind: Kind,
    /// From the root on, with a slash before it; bytes that are no text are replaced.
    pub path: String,
}

/// What came is no list of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoList;

impl fmt::Display for NoList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest's list of changes cannot be read")
    }
}

impl std::error::Error for NoList {}

/// Reads a list: of each change its letter and its path, and NUL behind. Gives them by path.
///
/// # Errors
/// [`NoList`], also for more than [`LONGEST`] bytes.
pub fn read(list: &[u8]) -> Result<Vec<Change>, NoList> {
    if list.len() as u64 > LONGEST {
        return Err(NoList);
    }
    let Some(list) = list.strip_suffix(&[0]) else {
        return if list.is_empty() { Ok(Vec::new()) } else { Err(NoList) };
    };
    let one = |line: &[u8]| match line.split_first() {
        Some((letter, path)) if path.starts_with(b"/") && path.len() > 1 => {
            let kind = Kind::ALL.into_iter().find(|kind| kind.letter() == char::from(*letter)).ok_or(NoList)?;
            Ok(Change { kind, path: String::from_utf8_lossy(path).into_owned() })
        }
        _ => Err(NoList),
    };
    let mut changes = list.split(|byte| *byte == 0).map(one).collect::<Result<Vec<_>, _>>()?;
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_by_path_and_what_is_none_is_refused() {
        let changes = read(b"D/b\0C/a\0A/a/\xff\n\0").unwrap();
        let shown: Vec<_> = changes.iter().map(|change| (change.kind.letter(), change.path.as_str())).collect();
        assert_eq!(shown, [('C', "/a"), ('A', "/a/\u{fffd}\n"), ('D', "/b")]);
        assert!(read(b"").unwrap().is_empty());
        for bad in [&b"A/a"[..], b"\0", b"A/a\0\0", b"X/a\0", b"Aa\0", b"A/\0", b"A\0"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
