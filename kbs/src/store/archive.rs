//! Archives: lines of the audit trail that were moved out of the database into files, and the record of each.
//!
//! The record is a row that decides: its key, which the ledger knows from its own chain, says which lines went and with what hash
//! they end. The trail goes on behind the newest of them. So lines cannot be hidden by saying that they are archived, and an archive
//! proves itself: every line names the one before it, and the record the last.
//! Trusts: the root key. Believes a file only as far as its lines lead to the record.
//! Never: removes a line before the record that it is archived is committed; reads one after that.

use coffer_kbs_client::trail::InputOf;
use coffer_verifier::binding::length_prefixed;
use serde::Deserialize;

use super::{
    AuditEntry, AuditFault, BROKER, StoreError,
    audit::{ArchivedLines, TrailStart, check_line, sequence_of},
    ledger::{Ledger, Store},
    marker::chained,
    record::{Fields, Record, RowKey},
    rows::{Kind, Row, Transaction as _},
};
use crate::{keys::RowKind, tenant::Tenant};

/// Lines that lie in a file, by the database's own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// SHA-256 of the last.
    pub head: [u8; 32],
    /// The file; nothing where a repair had to forget it.
    pub file: Option<ArchiveFile>,
}

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Its name, without a folder.
    pub name: String,
    /// SHA-256 of all of it.
    pub sha256: [u8; 32],
    /// When.
    pub at_unix: i64,
}

/// Lines that are to be archived, in the order of the trail.
#[derive(Debug, Default)]
pub struct Stretch {
    /// Number, time, text, and what the policy saw, where that is kept.
    pub lines: Vec<(u64, String, String, Option<InputOf>)>,
    /// Where the whole trail ends.
    pub end: u64,
}

/// What is looked at of a line.
#[derive(Deserialize)]
struct Looked {
    time: String,
    tenant: Option<String>,
    input: Option<String>,
}

impl Record for Archive {
    fn encode(&self) -> Vec<u8> {
        match &self.file {
            Some(file) => length_prefixed(&[file.name.as_bytes(), &file.sha256, &file.at_unix.to_be_bytes()]),
            None => Vec::new(),
        }
    }

    fn decode(key: &RowKey, body: &[u8]) -> Option<Self> {
        let (first, last, head) = lines_of(key)?;
        let file = match body {
            [] => None,
            body => {
                let mut fields = Fields(body);
                let file = ArchiveFile { name: fields.text()?, sha256: fields.array()?, at_unix: fields.signed()? };
                Some(fields.end(file)?)
            }
        };
        Some(Self { first, last, head, file })
    }
}

impl Archive {
    /// Of a file that nobody knows any more. Its lines go on proving themselves.
    pub(super) fn forgotten() -> Vec<u8> {
        Vec::new()
    }
}

/// Ordered by the last line.
fn key(archive: &Archive) -> RowKey {
    RowKey::global(Kind::AuditArchive, &[&archive.last.to_be_bytes(), &archive.first.to_be_bytes(), &archive.head])
}

fn lines_of(key: &RowKey) -> Option<(u64, u64, [u8; 32])> {
    let number = |at| key.part(at).try_into().map(u64::from_be_bytes).ok();
    Some((number(1)?, number(0)?, key.part(2).try_into().ok()?))
}

impl Ledger {
    /// Behind which line the trail begins: from what the ledger knows, whatever the rows say.
    pub fn trail_start(&self) -> TrailStart {
        let newest = self.newest_global(Kind::AuditArchive, lines_of);
        newest.map_or(TrailStart::default(), |(_, archived, hash)| TrailStart { archived, hash })
    }

    /// Every archive, oldest first; with what is wrong with a record where one should be.
    ///
    /// # Errors
    /// As the store.
    pub async fn archives(&mut self) -> Result<Vec<Result<Archive, StoreError>>, StoreError> {
        let keys = self.global_keys(Kind::AuditArchive);
        self.records(keys).await
    }

    /// Archives with lines from a number on, as far as their records hold: for whoever looks for lines that are not here.
    ///
    /// # Errors
    /// As the store.
    pub async fn archived_from(&mut self, number: u64) -> Result<Vec<Archive>, StoreError> {
        let mut found = Vec::new();
        for key in self.global_keys(Kind::AuditArchive) {
            let Some((first, last, head)) = lines_of(&key).filter(|(_, last, _)| *last >= number) else { continue };
            found.push(match self.record(&key).await {
                Ok(Some(archive)) => archive,
                Ok(None) | Err(StoreError::Tampered { .. }) => Archive { first, last, head, file: None },
                Err(error) => return Err(error),
            });
        }
        Ok(found)
    }

    /// Rows that lie there although they are archived, of an archive that was cut off after its record: nobody reads them.
    pub(super) fn is_left_over(&self, number: u64, row: &Row) -> bool {
        number <= self.trail_start().archived
            && self.root.check_mac(RowKind::AuditLine, &[&number.to_be_bytes(), &row.body], &row.mac).is_ok()
    }
}

impl Store {
    /// Lines from a number on, so many at once, each checked.
    ///
    /// # Errors
    /// [`StoreError::Audit`] where one does not hold: a damaged trail is not archived.
    pub async fn lines_to_archive(&self, from: TrailStart) -> Result<Stretch, StoreError> {
        let mut ledger = self.read().await?;
        let mut stretch = Stretch { lines: Vec::new(), end: ledger.head.lines };
        let mut at = from;
        for (key, row) in ledger.lines(from.archived + 1, BATCH).await? {
            let number = sequence_of(&key);
            if number > stretch.end {
                break;
            }
            check_line(&ledger.root, at.archived + 1, number, &row, &at.hash).map_err(StoreError::Audit)?;
            at = TrailStart { archived: number, hash: chained(&ledger.root, &key, &row) };
            let text =
                String::from_utf8(row.body).map_err(|_| StoreError::Audit(AuditFault::Line { sequence: number }))?;
            let fault = |_| StoreError::Audit(AuditFault::Line { sequence: number });
            let Looked { time, tenant, input } = serde_json::from_str(&text).map_err(fault)?;
            let kept = match (tenant.as_deref().map(Tenant::parse), input) {
                (Some(Ok(tenant)), Some(named)) => ledger.input_of(&tenant, number, &named).await?,
                _ => None,
            };
            stretch.lines.push((number, time, text, kept));
        }
        let missing = AuditFault::End { expected: stretch.end, found: at.archived };
        if stretch.lines.is_empty() && at.archived < stretch.end {
            return Err(StoreError::Audit(missing));
        }
        Ok(stretch)
    }

    /// Records that lines are archived, with a line in the trail that says so. From now on nobody reads them here. Gives that line,
    /// or nothing where the trail does not begin and lead where the archive does: another archive was faster.
    ///
    /// # Errors
    /// As [`Store::write`]; after one of [`Ledger::commit`] it may be recorded all the same.
    pub async fn record_archive(&self, archive: &Archive, now_unix: i64) -> Result<Option<String>, StoreError> {
        let mut ledger = self.write_alone().await?;
        let there = ledger.lines(archive.last, 1).await?;
        let ends = there.first().is_some_and(|(key, row)| {
            sequence_of(key) == archive.last && chained(&ledger.root, key, row) == archive.head
        });
        if !ends || ledger.trail_start().archived + 1 != archive.first || archive.last > ledger.head.lines {
            return Ok(None);
        }
        // A history leads through its checkpoint's line, which must not be one that goes.
        self.shared.follower.keep(&ledger.root, &ledger.head).await?;
        ledger.put_record(key(archive), archive).await?;
        let file = archive.file.as_ref();
        let entry = AuditEntry {
            event: "audit.archive",
            outcome: "done",
            peer: BROKER.into(),
            name: file.map(|file| file.name.clone()),
            key: file.map(|file| hex::encode(file.sha256)),
            archived: Some(ArchivedLines { first: archive.first, last: archive.last, head: hex::encode(archive.head) }),
            ..AuditEntry::default()
        };
        let line = ledger.append_audit(&entry, now_unix).await?;
        ledger.commit().await?;
        Ok(Some(line))
    }

    /// True if this archive is recorded.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn has_archive(&self, archive: &Archive) -> Result<bool, StoreError> {
        Ok(self.read().await?.has(&key(archive)))
    }

    /// Removes what is archived: lines, and what policies saw of their decisions. Some at a time, so that others can write between.
    /// Gives the number of lines.
    ///
    /// # Errors
    /// As [`Store::write`]; what is left is removed the next time.
    pub async fn remove_archived(&self) -> Result<u64, StoreError> {
        let (mut removed, mut left, mut from) = (0, 0, 0_u64);
        loop {
            let mut ledger = self.write_alone().await?;
            let archived = ledger.trail_start().archived;
            let rows = if from <= archived { ledger.lines(from, BATCH).await? } else { Vec::new() };
            let numbers = rows.iter().filter_map(|(key, _)| key.as_slice().try_into().ok().map(u64::from_be_bytes));
            let last = numbers.max();
            let mut some = false;
            for (key, row) in rows {
                let Ok(number) = key.as_slice().try_into().map(u64::from_be_bytes) else { continue };
                if number > archived {
                    break;
                }
                if !ledger.is_left_over(number, &row) {
                    // Somebody else's row: `state verify` names it.
                    left += 1;
                    continue;
                }
                if let Ok(Looked { tenant: Some(tenant), input: Some(_), .. }) = serde_json::from_slice(&row.body)
                    && let Ok(tenant) = Tenant::parse(&tenant)
                {
                    ledger.drop_input(&tenant, number).await?;
                }
                ledger.transaction.remove(Kind::AuditLine, &key).await?;
                (some, removed) = (true, removed + 1);
            }
            if some {
                ledger.commit().await?;
                // Whoever serves gets the next turn.
                tokio::time::sleep(PAUSE).await;
            }
            match last.and_then(|last| last.checked_add(1)) {
                Some(next) if next <= archived => from = next,
                _ => break,
            }
        }
        if left > 0 {
            tracing::warn!(
                left,
                "rows lie among archived lines that this server did not write: `coffer-kbs state verify` names them"
            );
        }
        Ok(removed)
    }
}

/// Lines read or removed at once.
const BATCH: usize = 500;
/// Between two removals.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(5);
