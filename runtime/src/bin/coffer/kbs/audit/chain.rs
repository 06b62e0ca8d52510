//! The chain of an audit trail, checked on this side: each line names the SHA-256 of the line before it.
//!
//! Trusts: nothing but a head that was noted before. It shows that no line was changed, removed, added or moved between the first and
//! the last; not who wrote them: the MACs of the lines are the broker's to check.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Why lines are no whole trail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not a line of a trail.
    #[error("line {0} of the copy is no line of an audit trail")]
    NotALine(u64),
    /// A number that does not follow.
    #[error("line {expected} is missing, found line {found}")]
    Gap {
        /// Wanted.
        expected: u64,
        /// There.
        found: u64,
    },
    /// A line that names another line before it.
    #[error("line {0} does not continue the line before it: one of them was changed")]
    Broken(u64),
    /// More behind the end.
    #[error("there is something behind the end of the copy")]
    BehindTheEnd,
    /// No end.
    #[error("the copy has no end: its last line says where the trail ended when it was exported")]
    NoEnd,
    /// Another end.
    #[error("the copy ends with line {found}, the trail ended with line {expected} and another hash")]
    End {
        /// By the end mark.
        expected: u64,
        /// By the lines.
        found: u64,
    },
    /// A head that was noted is not in it.
    #[error("no line of it has the hash {0}: it is another trail, or an older one")]
    NotThere(String),
}

/// How an export ends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Number of the last line.
    pub lines: u64,
    /// SHA-256 of it, hex.
    pub head: String,
}

#[derive(Deserialize)]
struct Line {
    sequence: u64,
    previous: String,
}

/// Checks one line after the other.
#[derive(Debug)]
pub struct Chain {
    /// Lines so far.
    lines: u64,
    head: String,
    noted: Option<String>,
}

impl Chain {
    /// Before the first line. `noted`: the hash of a line that must be among them.
    pub fn new(noted: Option<&str>) -> Self {
        let head = "0".repeat(64);
        // Noted before there was a line.
        let noted = noted.filter(|noted| **noted != head).map(str::to_owned);
        Self { lines: 0, head, noted }
    }

    /// The next line.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn next(&mut self, line: &str) -> Result<(), ChainError> {
        let expected = self.lines + 1;
        let parsed: Line = serde_json::from_str(line).map_err(|_| ChainError::NotALine(expected))?;
        if parsed.sequence != expected {
            return Err(ChainError::Gap { expected, found: parsed.sequence });
        }
        if parsed.previous != self.head {
            return Err(ChainError::Broken(expected));
        }
        (self.lines, self.head) = (expected, hex::encode(Sha256::digest(line)));
        if self.noted.as_ref() == Some(&self.head) {
            self.noted = None;
        }
        Ok(())
    }

    /// Where it ends now.
    pub fn end(&self) -> End {
        End { lines: self.lines, head: self.head.clone() }
    }

    /// After the last line, whose end was stated so.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn finish(self, stated: &End) -> Result<End, ChainError> {
        let end = self.end();
        if end != *stated {
            return Err(ChainError::End { expected: stated.lines, found: end.lines });
        }
        match self.noted {
            Some(noted) => Err(ChainError::NotThere(noted)),
            None => Ok(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_copy(text: &str, noted: Option<&str>) -> Result<End, ChainError> {
        let (mut chain, mut stated) = (Chain::new(noted), None);
        for line in text.lines() {
            match serde_json::from_str::<End>(line) {
                Ok(end) => stated = Some(end),
                Err(_) => chain.next(line)?,
            }
        }
        chain.finish(&stated.ok_or(ChainError::NoEnd)?)
    }

    fn copy() -> Vec<String> {
        let mut chain = Chain::new(None);
        let mut lines = Vec::new();
        for sequence in 1..=4 {
            let end = chain.end();
            let line = format!("{{\"sequence\":{sequence},\"event\":\"e\",\"previous\":\"{}\"}}", end.head);
            chain.next(&line).unwrap();
            lines.push(line);
        }
        lines.push(serde_json::to_string(&chain.end()).unwrap());
        lines
    }

    #[test]
    fn a_whole_copy_holds_and_every_change_of_it_is_noticed() {
        let whole = copy();
        let check = |lines: &[String]| check_copy(&lines.join("\n"), None);
        let end = check(&whole).unwrap();
        assert_eq!(end.lines, 4);
        for at in 0..4 {
            let mut changed = whole.clone();
            changed[at] = changed[at].replace("\"e\"", "\"f\"");
            assert!(check(&changed).is_err(), "changed {at}");
            let mut cut = whole.clone();
            cut.remove(at);
            assert!(check(&cut).is_err(), "without {at}");
            let mut swapped = whole.clone();
            swapped.swap(at, (at + 1) % 4);
            assert!(check(&swapped).is_err(), "swapped {at}");
        }
        assert_eq!(check(&whole[..4]), Err(ChainError::NoEnd));
        assert_eq!(check(&[&whole[..3], &whole[4..]].concat()), Err(ChainError::End { expected: 4, found: 3 }));
        assert!(matches!(check(&["no".to_owned()]), Err(ChainError::NotALine(1))));
    }

    #[test]
    fn a_head_that_was_noted_lies_in_it_or_it_is_another_trail() {
        let whole = copy();
        let text = whole.join("\n");
        let head = hex::encode(Sha256::digest(&whole[1]));
        for noted in [None, Some(head.as_str()), Some("0".repeat(64).as_str())] {
            assert!(check_copy(&text, noted).is_ok(), "{noted:?}");
        }
        let other = "ab".repeat(32);
        assert_eq!(check_copy(&text, Some(&other)), Err(ChainError::NotThere(other)));
    }
}
