//! Lines of the audit trail that are gone for good, and what stands in their place once an owner accepts that.
//!
//! Each lost line gets one of its number that says so. The last of a gap names the SHA-256 of the line that was there, which the line
//! behind it names too, so that everything after it goes on holding; and the line that accepts the gap names the marker's own, so that
//! everything before it does.
//! Trusts: the root key. Believes a marker only under its MAC.
//! Never: puts a marker in the place of a line that holds.

use coffer_kbs_client::trail::LostLines;
use sha2::{Digest as _, Sha256};

use super::{
    AuditEntry, BROKER, StoreError,
    audit::previous_of,
    known::every,
    ledger::Ledger,
    marker::{self, chained},
    rows::{Kind, Row, Transaction as _},
};

/// Lines of the trail that do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    first: u64,
    last: u64,
    /// SHA-256 of the last, as the line behind it names it, or the end mark.
    was: [u8; 32],
}

/// What is not as it should be in the trail.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Newest first.
    gaps: Vec<Gap>,
    /// Keys of rows that are no lines of it.
    strays: Vec<Vec<u8>>,
}

impl Gap {
    fn said(&self) -> String {
        match self {
            Self { first, last, .. } if first == last => format!("line {first}"),
            Self { first, last, .. } => format!("lines {first} to {last}"),
        }
    }
}

impl Losses {
    /// Which lines, for people; nothing where none is.
    pub(super) fn said(&self) -> Option<String> {
        let mut gaps: Vec<String> = self.gaps.iter().rev().take(NAMED).map(Gap::said).collect();
        if let more @ 1.. = self.gaps.len().saturating_sub(NAMED) {
            gaps.push(format!("{more} gaps more"));
        }
        (!gaps.is_empty()).then(|| gaps.join(", "))
    }
}

/// Gaps that are named one by one.
const NAMED: usize = 20;

impl Ledger {
    /// What does not hold in the trail: from its end back, since each line names the one before it.
    pub(super) async fn losses(&mut self) -> Result<Losses, StoreError> {
        let (start, end) = (self.trail_start(), self.head.lines);
        let mut losses = Losses::default();
        for (key, _) in every(&mut self.transaction, Kind::AuditLine).await? {
            if <[u8; 8]>::try_from(key.as_slice()).map_or(true, |number| u64::from_be_bytes(number) > end) {
                losses.strays.push(key);
            }
        }
        let mut wanted = Some(self.head.line_hash);
        let mut gap: Option<Gap> = None;
        for number in (start.archived + 1..=end).rev() {
            let key = number.to_be_bytes();
            let row = self.transaction.get(Kind::AuditLine, &key).await?;
            let is_it = |row: &Row| wanted.is_none_or(|wanted| chained(&self.root, &key, row) == wanted);
            let named = row.filter(is_it).and_then(|row| previous_of(&self.root, number, &row));
            // The first must go on where the archive ends.
            let named = named.filter(|named| number > start.archived + 1 || *named == start.hash);
            match (named, &mut gap) {
                (Some(_), gap) => losses.gaps.extend(gap.take()),
                (None, Some(gap)) => gap.first = number,
                (None, gap) => *gap = wanted.map(|was| Gap { first: number, last: number, was }),
            }
            wanted = named;
        }
        losses.gaps.extend(gap);
        Ok(losses)
    }

    /// Puts markers in the place of what is lost, and takes away what is no line of the trail. What to say of it in the line that
    /// accepts it.
    pub(super) async fn accept(&mut self, losses: Losses, now_unix: i64) -> Result<Vec<LostLines>, StoreError> {
        for key in losses.strays {
            self.transaction.remove(Kind::AuditLine, &key).await?;
        }
        let mut accepted = Vec::new();
        for Gap { first, last, was } in losses.gaps.into_iter().rev() {
            let start = self.trail_start();
            let before = (first - 1).to_be_bytes();
            let mut previous = match self.transaction.get(Kind::AuditLine, &before).await? {
                _ if first == start.archived + 1 => start.hash,
                Some(row) => chained(&self.root, &before, &row),
                None => [0; 32],
            };
            for number in first..=last {
                let stands_for = (number == last).then(|| hex::encode(was));
                let peer = BROKER.into();
                let entry =
                    AuditEntry { event: marker::EVENT, outcome: "done", peer, stands_for, ..AuditEntry::default() };
                let line = self.line_at(number, &previous, &entry, now_unix).await?;
                previous = Sha256::digest(line.as_bytes()).into();
                if self.transaction.writes.len() >= WRITES {
                    self.transaction.hand_down().await?;
                }
            }
            accepted.push(LostLines { first, last, marker: hex::encode(previous) });
        }
        Ok(accepted)
    }
}

/// Rows that lie in memory before they are handed down.
const WRITES: usize = 1000;
