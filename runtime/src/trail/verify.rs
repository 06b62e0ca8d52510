//! Follows the chain from the oldest line that is kept to the head, and names the first place where it breaks.

use std::fmt;
use std::io;
use std::path::Path;

use super::head::Head;
use super::line::{Line, NOTHING_BEFORE, digest};
use super::parts;
use super::read::Part;

/// A trail that was followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The oldest line that is kept.
    pub first: u64,
    /// The last line.
    pub last: u64,
    /// Digest of the last line.
    pub digest: String,
    /// Bytes of a line that was never finished: the next writer cuts it off.
    pub half_line_bytes: u64,
    /// Where the chain breaks, if it does.
    pub broken: Option<Broken>,
}

/// Where, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// There are lines, and no head that can be read.
    NoHead,
    /// This one is no line.
    Unreadable {
        /// Which should be there.
        number: u64,
    },
    /// Another stands where this one should.
    NotNext {
        /// Which should be there.
        expected: u64,
        /// Which is.
        found: u64,
    },
    /// It is not the line that the next one, or the head, was written after.
    Changed {
        /// Which.
        number: u64,
    },
    /// Lines at the end are gone.
    Truncated {
        /// The last that is there.
        last: u64,
        /// The last that was written.
        written: u64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHead => f.write_str("there are lines and no head"),
            Self::Unreadable { number } => write!(f, "line {number} cannot be read"),
            Self::NotNext { expected, found } if found > expected => {
                write!(f, "line {expected} is missing: line {found} stands in its place")
            }
            Self::NotNext { expected, found } => {
                write!(f, "line {found} is out of order: it stands where line {expected} should")
            }
            Self::Changed { number } => write!(f, "line {number} is not what it was when the next was written"),
            Self::Truncated { last, written } => {
                write!(f, "lines {} to {written} are missing at the end", last.saturating_add(1))
            }
        }
    }
}

/// Follows a trail. Whoever writes meanwhile is not waited for, and not taken for a break.
///
/// # Errors
/// As `read(2)`.
pub fn check(folder: &Path) -> io::Result<Checked> {
    for _ in 0..10 {
        let before = Head::look(folder)?;
        let found = follow(folder, before.as_ref());
        if matches!(&found, Ok(Checked { broken: None, .. })) || Head::look(folder)? == before {
            return found;
        }
    }
    let head = Head::look(folder)?;
    follow(folder, head.as_ref())
}

fn follow(folder: &Path, head: Option<&Head>) -> io::Result<Checked> {
    let kept = parts::all(folder)?;
    let new = Head::new();
    let Some(head) = head else {
        let (first, last) = kept.first().map_or((1, 0), |first| (*first, *first));
        let broken = (!kept.is_empty()).then_some(Broken::NoHead);
        return Ok(Checked { first, last, digest: NOTHING_BEFORE.into(), half_line_bytes: 0, broken });
    };
    let mut checked = Checked {
        first: head.first,
        last: head.first.saturating_sub(1),
        digest: head.before_first.clone(),
        half_line_bytes: 0,
        broken: None,
    };
    // What is older goes with the next part.
    for number in kept.into_iter().filter(|number| *number >= head.first.max(new.first)) {
        let mut part = Part::open(folder, number)?;
        while let Some(bytes) = part.next()? {
            let expected = checked.last + 1;
            let broken = match Line::read(&bytes) {
                None => Broken::Unreadable { number: expected },
                Some(line) if line.number != expected => Broken::NotNext { expected, found: line.number },
                Some(line) if line.previous != checked.digest => Broken::Changed { number: checked.last },
                Some(_) => {
                    (checked.last, checked.digest) = (expected, digest(&bytes));
                    if expected == head.lines && checked.digest != head.digest {
                        return Ok(Checked { broken: Some(Broken::Changed { number: expected }), ..checked });
                    }
                    continue;
                }
            };
            return Ok(Checked { broken: Some(broken), ..checked });
        }
        let length = std::fs::metadata(parts::path(folder, number))?.len();
        checked.half_line_bytes = length.saturating_sub(part.at());
    }
    if checked.last < head.lines {
        checked.broken = Some(Broken::Truncated { last: checked.last, written: head.lines });
    }
    Ok(checked)
}
