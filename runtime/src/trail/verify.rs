//! Follows the chain from the oldest line that is kept to the head, and names the first place where it breaks.

use std::fmt;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::head::Head;
use super::line::{Line, MENDED, NOTHING_BEFORE, digest};
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
    /// Lines that say that a writer found the trail otherwise than the last one had left it, and went on from there.
    pub mended: Vec<Mended>,
    /// Where the chain breaks, if it does.
    pub broken: Option<Broken>,
}

/// A line that says what was not as it should have been, before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mended {
    /// Its number.
    pub number: u64,
    /// What it says.
    pub details: Map<String, Value>,
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
    /// Lines stand before the oldest that is kept, and do not lead to it.
    Before {
        /// The first of them.
        number: u64,
        /// The oldest that is kept.
        first: u64,
    },
    /// Behind the last line that the head knows, or the one that a writer was killed behind, there are more.
    Behind {
        /// The first of them.
        number: u64,
        /// The last that was written.
        written: u64,
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
            Self::Before { number, first } => {
                write!(f, "what stands from line {number} on does not lead to line {first}, the oldest that is kept")
            }
            Self::Behind { number, written } => {
                write!(f, "line {number} is none that was written here: the last of those is line {written}")
            }
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
    let mut checked = Checked {
        first: 1,
        last: 0,
        digest: NOTHING_BEFORE.into(),
        half_line_bytes: 0,
        mended: Vec::new(),
        broken: None,
    };
    let Some(head) = head else {
        if let Some(first) = kept.first() {
            (checked.first, checked.last, checked.broken) = (*first, *first, Some(Broken::NoHead));
        }
        return Ok(checked);
    };
    (checked.first, checked.digest) = (head.first, head.before_first.clone());
    // An older part goes with the next that begins, unless whoever begins it is killed: then it is shown as long as it is there, and
    // followed as the others are. What its first line says of the one before is not known any more.
    let older = kept.first().copied().filter(|oldest| *oldest < head.first);
    let mut unknown = older.is_some();
    checked.first = older.unwrap_or(head.first);
    checked.last = checked.first.saturating_sub(1);
    let oldest = head.first;
    let mut head = head.clone();
    for number in kept {
        let mut part = Part::open(folder, number)?;
        while let Some(bytes) = part.next()? {
            let expected = checked.last.saturating_add(1);
            let broken = match Line::read(&bytes) {
                None => Broken::Unreadable { number: expected },
                Some(line) if line.number != expected => Broken::NotNext { expected, found: line.number },
                Some(line) if !unknown && line.previous != checked.digest => Broken::Changed { number: checked.last },
                Some(line) => {
                    unknown = false;
                    if expected > head.lines.saturating_add(1) {
                        // Written meanwhile, or not by a writer of ours.
                        head = Head::look(folder)?.unwrap_or(head);
                    }
                    if expected > head.lines.saturating_add(1) {
                        let broken = Broken::Behind { number: expected, written: head.lines };
                        return Ok(Checked { broken: Some(broken), ..checked });
                    }
                    (checked.last, checked.digest) = (expected, digest(&bytes));
                    if expected == head.lines && checked.digest != head.digest {
                        return Ok(Checked { broken: Some(Broken::Changed { number: expected }), ..checked });
                    }
                    if line.action == MENDED {
                        checked.mended.push(Mended { number: line.number, details: line.details });
                    }
                    continue;
                }
            };
            let broken = if checked.first < oldest && expected <= oldest {
                Broken::Before { number: checked.first, first: oldest }
            } else {
                broken
            };
            return Ok(Checked { broken: Some(broken), ..checked });
        }
        checked.half_line_bytes = part.length()?.saturating_sub(part.at());
    }
    if checked.last < head.lines {
        checked.broken = Some(Broken::Truncated { last: checked.last, written: head.lines });
    }
    Ok(checked)
}
