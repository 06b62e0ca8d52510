//! The audit trail: one JSON line per decision, each naming the SHA-256 of the line before it, each under a MAC.
//!
//! The chain alone lets anybody who holds an exported trail check it; the MACs stop whoever can write to the file from
//! making a new one, and the head row from cutting lines off. A whole older database is not noticed by itself.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use coffer_kbs_client::trail::LostLines;

use super::{
    StoreError,
    ledger::{Ledger, Store},
    marker::{chained, lost},
    rows::Row,
};
use crate::keys::{RootKey, RowKind};

/// What is wrong with an audit trail, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditFault {
    /// No head, or not ours.
    #[error("the end mark is missing or was not written by this server")]
    Head,
    /// A line's MAC fails.
    #[error("line {sequence} was not written by this server")]
    Line {
        /// Where.
        sequence: u64,
    },
    /// A line does not name the line before it.
    #[error("line {sequence} does not continue line {}", sequence.saturating_sub(1))]
    Chain {
        /// Where.
        sequence: u64,
    },
    /// A line is gone.
    #[error("line {expected} is missing, found line {found}")]
    Gap {
        /// Wanted.
        expected: u64,
        /// There instead.
        found: u64,
    },
    /// Lines at the end are gone or were added.
    #[error("the trail ends with line {found}, its end mark says {expected}")]
    End {
        /// By the head.
        expected: u64,
        /// By the lines.
        found: u64,
    },
}

/// What is wrong with the record of changes, from which the rows that count are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateFault {
    /// An entry is missing, or not ours.
    #[error("change {number} is missing or was not written by this server")]
    Entry {
        /// Which.
        number: u64,
    },
    /// Entries at the end are gone.
    #[error("the record of changes ends with change {found}, its end mark says {expected}")]
    End {
        /// By the head.
        expected: u64,
        /// By the entries.
        found: u64,
    },
    /// Genuine entries, but not in the order this server wrote them.
    #[error("the record of changes does not lead to its end mark")]
    Chain,
    /// Genuine rows lie behind the end mark, which therefore is an older one.
    #[error(
        "the end mark was set back: it says line {lines} and change {changes}, and the database goes on after them"
    )]
    Beyond {
        /// Lines by the end mark.
        lines: u64,
        /// Changes by the end mark.
        changes: u64,
    },
    /// The rows are older than they were a moment ago.
    #[error("the database was set back: it ends with line {found}, this server has seen line {seen}")]
    SetBack {
        /// Last line seen.
        seen: u64,
        /// Last line there.
        found: u64,
    },
}

/// How each line begins.
const LINE: &str = "{\"sequence\":";

/// Where a copy of the log and the trail part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {sequence} of the log is not in the trail, which ends with line {end}")]
pub struct LogFault {
    /// The first line that is not there, or says something else there.
    pub sequence: u64,
    /// Where the trail ends.
    pub end: u64,
}

/// A verified trail in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditSummary {
    /// Number of lines, those that are archived among them.
    pub lines: u64,
    /// Up to which line it is archived, and was not looked at here; 0: nothing is.
    pub archived: u64,
    /// SHA-256 of the last, hex: note it elsewhere and a cut trail shows.
    pub head: String,
    /// Number of rows that decide something, each checked.
    pub rows: u64,
    /// Number of lines that are lost, as somebody accepted; those that are archived were not looked at.
    pub lost: u64,
}

/// One decision. Fields that do not apply are left out of the line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// What was asked: `secret.release`, `secret.put`, `reference.add` …
    pub event: &'static str,
    /// `released`, `refused`, `done`.
    pub outcome: &'static str,
    /// Joins a peer's answer to this line.
    pub id: String,
    /// Who asked: the guest's key or the admin certificate's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// Tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The tenant that somebody names of whom nothing is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_tenant: Option<Claimed>,
    /// Secret path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Secret version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Signer, manifest key or manifest, by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its key: author key digest, or SHA-256 of a manifest key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Sequence of a manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest_sequence: Option<u64>,
    /// What an operator may.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// A generation counter, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<String>,
    /// Where it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Serial number of a certificate, hex.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Release policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether simulated evidence may have the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_simulated: Option<bool>,
    /// What is not as it was, by an operator's word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Whose evidence, or which reference.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestFacts>,
    /// The word a stranger was told, where it is not in `reasons`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// Where strangers came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How many refusals of strangers a line stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Ids of some of the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Lines that were moved into a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archived: Option<ArchivedLines>,
    /// Lines that are gone, which somebody accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<LostLines>,
    /// SHA-256 of the line that was here before it was lost, hex, as the next line names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<String>,
    /// SHA-256 of what the policy saw, where that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Every reason against.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Every check of the evidence, in the form of `coffer verify --json` and `coffer attest --json`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<coffer_verifier::CheckLine>,
}

/// Name in the trail of what the broker did by itself.
pub(crate) const BROKER: &str = "coffer-kbs";

/// What a stranger's spec names as its tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Claimed {
    /// One that is there.
    Tenant(String),
    /// A name that anybody makes up.
    Word(String),
}

/// Which lines an archive is of, in its line of the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArchivedLines {
    /// Number of the first.
    pub first: u64,
    /// Number of the last.
    pub last: u64,
    /// SHA-256 of the last, hex.
    pub head: String,
}

/// Behind which line the trail in the database begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrailStart {
    /// Number of the last line that is archived; 0: none is.
    pub archived: u64,
    /// SHA-256 of it.
    pub hash: [u8; 32],
}

/// What the evidence says about the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GuestFacts {
    /// MEASUREMENT.
    pub measurement: String,
    /// Workload digest.
    pub workload_digest: String,
    /// REPORT_ID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub report_id: String,
    /// CHIP_ID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub chip_id: String,
    /// `amd` or `simulated`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub anchor: String,
    /// SHA-256 of the ARK's SubjectPublicKeyInfo.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub anchor_fingerprint: String,
}

/// A line that is about to last.
pub struct Recorded(tokio::task::JoinHandle<Result<(), StoreError>>);

impl Recorded {
    /// Waits until it does.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn lasts(self) -> Result<(), StoreError> {
        self.0.await.map_err(StoreError::interrupted)?
    }
}

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    time: String,
    #[serde(flatten)]
    entry: &'a AuditEntry,
    previous: String,
}

impl Ledger {
    /// Appends one line; it exists only if this transaction commits. Gives the line as written.
    ///
    /// # Errors
    /// As the store.
    pub async fn append_audit(&mut self, entry: &AuditEntry, now_unix: i64) -> Result<String, StoreError> {
        let sequence = self.head.lines + 1;
        let line = self.line_at(sequence, &self.head.line_hash.clone(), entry, now_unix).await?;
        self.head.lines = sequence;
        self.head.line_hash = Sha256::digest(line.as_bytes()).into();
        Ok(line)
    }

    /// Writes the line of a number, behind one with this hash. Gives it as written.
    pub(super) async fn line_at(
        &mut self,
        sequence: u64,
        previous: &[u8; 32],
        entry: &AuditEntry,
        now_unix: i64,
    ) -> Result<String, StoreError> {
        let mut named = entry.clone();
        if named.id.is_empty() {
            // Every line can be asked for by its id, also where nobody was told one.
            let place = Sha256::new().chain_update(previous).chain_update(sequence.to_be_bytes());
            named.id = hex::encode(&place.finalize()[..8]);
        }
        let entry = &named;
        let write = |entry: &AuditEntry| {
            let line = Line { sequence, time: rfc3339(now_unix), entry, previous: hex::encode(previous) };
            serde_json::to_string(&line).map_err(|_| StoreError::Range { what: "audit line" })
        };
        let mut line = write(entry)?;
        if line.len() > LINE_LIMIT {
            line = write(&shortened(entry))?;
        }
        let mac = self.root.mac(RowKind::AuditLine, &[&sequence.to_be_bytes(), line.as_bytes()]).to_vec();
        self.put_line(sequence, Row { body: line.clone().into_bytes(), mac }).await?;
        Ok(line)
    }

    /// Appends one line and commits, in a task of its own: a caller that goes away meanwhile changes nothing.
    /// `committed` is given the line once it lasts.
    ///
    /// # Errors
    /// As [`Ledger::commit`].
    pub async fn record_decision(
        self,
        entry: AuditEntry,
        now_unix: i64,
        committed: impl FnOnce(&str) + Send + 'static,
    ) -> Result<(), StoreError> {
        let task = tokio::spawn(async move { self.set_down(&entry, now_unix, committed).await?.lasts().await });
        task.await.map_err(StoreError::interrupted)?
    }

    /// Appends one line, and sets its commit off: it goes on whoever waits for it. `committed` is given the line once it lasts, also
    /// where the checkpoint has not moved.
    ///
    /// # Errors
    /// As the store.
    pub async fn set_down(
        mut self,
        entry: &AuditEntry,
        now_unix: i64,
        committed: impl FnOnce(&str) + Send + 'static,
    ) -> Result<Recorded, StoreError> {
        let line = self.append_audit(entry, now_unix).await?;
        let member = self.join()?;
        Ok(Recorded(tokio::spawn(async move {
            let told = member.told().await;
            if told.as_ref().map_or_else(StoreError::is_committed, |()| true) {
                committed(&line);
            }
            told
        })))
    }

    /// Lines from a sequence number on, oldest first, as far as they hold: MAC, chain and end are checked as they are read.
    ///
    /// # Errors
    /// As the store; [`StoreError::Audit`] where the first of them does not hold.
    pub async fn audit_lines(&mut self, from_sequence: u64, limit: u32) -> Result<Vec<String>, StoreError> {
        let start = self.trail_start();
        let from = from_sequence.max(start.archived + 1);
        // The line before names what the first must be chained to.
        let mut previous = match self.lines(from - 1, 1).await?.first() {
            _ if from == start.archived + 1 => start.hash,
            Some((key, row)) if sequence_of(key) == from - 1 => chained(&self.root, key, row),
            _ => [0; 32],
        };
        let rows = self.lines(from, limit as usize).await?;
        let whole = rows.len() < limit as usize;
        let mut lines = Vec::with_capacity(rows.len());
        let mut fault = None;
        for (key, row) in rows {
            let expected = from + lines.len() as u64;
            let checked = if expected > self.head.lines {
                Err(AuditFault::End { expected: self.head.lines, found: sequence_of(&key) })
            } else {
                check_line(&self.root, expected, sequence_of(&key), &row, &previous)
            };
            if let Err(found) = checked {
                fault = Some(found);
                break;
            }
            previous = chained(&self.root, &key, &row);
            lines.push(String::from_utf8_lossy(&row.body).into_owned());
        }
        let next = from + lines.len() as u64;
        if fault.is_none() && whole && next <= self.head.lines {
            fault = Some(AuditFault::End { expected: self.head.lines, found: next - 1 });
        }
        match fault {
            // What holds is given first; whoever asks for the rest is told.
            Some(fault) if lines.is_empty() => Err(StoreError::Audit(fault)),
            _ => Ok(lines),
        }
    }
}

impl Store {
    /// Checks every line's MAC and chain, the end mark, and every row that decides something.
    ///
    /// # Errors
    /// [`StoreError::Audit`] names the first fault of the trail, [`StoreError::Tampered`] the first row.
    pub async fn verify_audit(&self) -> Result<AuditSummary, StoreError> {
        let mut ledger = self.read().await?;
        let lost = check_trail(&mut ledger).await?.map_err(StoreError::Audit)?;
        let head = ledger.head;
        let archived = ledger.trail_start().archived;
        let rows = ledger.check_rows().await?;
        Ok(AuditSummary { lines: head.lines, archived, head: hex::encode(head.line_hash), rows, lost })
    }
}

/// What a copy of the log was compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Lines that stand in the trail as in the copy.
    pub lines: u64,
    /// Lines of the copy that the trail lost, as somebody accepted.
    pub lost: u64,
    /// Number and SHA-256 of those that are archived: in which form, the archives show.
    pub archived: BTreeMap<u64, [u8; 32]>,
}

impl Compared {
    /// With what came of another part of the same copy.
    ///
    /// # Errors
    /// The number of a line that is archived, and stands in both in different words: one is not of this trail.
    pub fn and(mut self, more: Self) -> Result<Self, u64> {
        self.lines += more.lines;
        self.lost += more.lost;
        for (sequence, hash) in more.archived {
            if self.archived.insert(sequence, hash).is_some_and(|before| before != hash) {
                return Err(sequence);
            }
        }
        Ok(self)
    }
}

impl Store {
    /// Compares the trail with a copy of the log that lies elsewhere: text with a line of the trail on some of its lines. Gives
    /// how many there were, or the first that the trail has not, or has otherwise: then this database was set back, or is
    /// another, or the copy was changed. A last line without an end may still be being written, and is passed over.
    ///
    /// # Errors
    /// As the store.
    pub async fn verify_against(&self, log: &str) -> Result<Result<Compared, LogFault>, StoreError> {
        let mut ledger = self.read().await?;
        let (mut compared, start) = (Compared::default(), ledger.trail_start());
        for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            // A log may hold more than the trail, and words before the line, such as the time.
            let Some((_, line)) = line.split_once(LINE) else { continue };
            let digits = line.bytes().take_while(u8::is_ascii_digit).count();
            let sequence = line[..digits].parse().unwrap_or(0);
            let line = format!("{LINE}{}", line.trim_end());
            let hash: [u8; 32] = Sha256::digest(line.as_bytes()).into();
            if (1..=start.archived).contains(&sequence) {
                // Of two with one number one is not of this trail.
                if compared.archived.insert(sequence, hash).is_some_and(|before| before != hash)
                    || sequence == start.archived && hash != start.hash
                {
                    return Ok(Err(LogFault { sequence, end: ledger.head.lines }));
                }
                continue;
            }
            let there = ledger.lines(sequence, 1).await?;
            let there = there.first().filter(|(key, _)| sequence_of(key) == sequence);
            let there = there.filter(|_| sequence <= ledger.head.lines);
            match there {
                Some((_, row)) if row.body == line.as_bytes() => compared.lines += 1,
                // The log has what the trail lost: of the last of a gap it is known what it was.
                Some((key, row)) if lost(&ledger.root, key, row).is_some_and(|was| was.may_be(hash)) => {
                    compared.lost += 1;
                }
                _ => return Ok(Err(LogFault { sequence, end: ledger.head.lines })),
            }
        }
        Ok(Ok(compared))
    }
}

/// Checks every line's MAC and chain, and the end mark. Gives how many lines stand in the place of lost ones.
pub(super) async fn check_trail(ledger: &mut Ledger) -> Result<Result<u64, AuditFault>, StoreError> {
    let (head, mut gone) = (ledger.head, 0);
    let TrailStart { archived: mut count, hash: mut previous } = ledger.trail_start();
    loop {
        let batch = ledger.lines(count + 1, BATCH).await?;
        let last = batch.len() < BATCH;
        for (key, row) in batch {
            let sequence = sequence_of(&key);
            if let Err(fault) = check_line(&ledger.root, count + 1, sequence, &row, &previous) {
                return Ok(Err(fault));
            }
            count = sequence;
            gone += u64::from(lost(&ledger.root, &key, &row).is_some());
            previous = chained(&ledger.root, &key, &row);
        }
        if last {
            break;
        }
    }
    if count != head.lines || previous != head.line_hash {
        return Ok(Err(AuditFault::End { expected: head.lines, found: count }));
    }
    Ok(Ok(gone))
}

pub(super) fn sequence_of(key: &[u8]) -> u64 {
    key.try_into().map_or(u64::MAX, u64::from_be_bytes)
}

/// What a line that is believed names as the line before it.
pub(super) fn previous_of(root: &RootKey, sequence: u64, row: &Row) -> Option<[u8; 32]> {
    root.check_mac(RowKind::AuditLine, &[&sequence.to_be_bytes(), &row.body], &row.mac).ok()?;
    let parsed: serde_json::Value = serde_json::from_slice(&row.body).ok()?;
    hex::decode(parsed.get("previous")?.as_str()?).ok()?.try_into().ok()
}

pub(super) fn check_line(
    root: &RootKey,
    expected: u64,
    sequence: u64,
    row: &Row,
    previous: &[u8; 32],
) -> Result<(), AuditFault> {
    if sequence != expected {
        return Err(AuditFault::Gap { expected, found: sequence });
    }
    root.check_mac(RowKind::AuditLine, &[&sequence.to_be_bytes(), &row.body], &row.mac)
        .map_err(|_| AuditFault::Line { sequence })?;
    let parsed: serde_json::Value = serde_json::from_slice(&row.body).map_err(|_| AuditFault::Line { sequence })?;
    if parsed.get("previous").and_then(|hash| hash.as_str()) != Some(hex::encode(previous).as_str()) {
        return Err(AuditFault::Chain { sequence });
    }
    Ok(())
}

/// Longest line as it was meant, in bytes; what is longer says less, and that it does.
pub(super) const LINE_LIMIT: usize = 64 * 1024;
/// Reasons of a line that would be too long.
const REASONS: usize = 32;
/// Longest word of each, in bytes.
const WORDS: usize = 512;

/// The entry without what makes it long: who, what and whether stay, of the reasons the first, of the checks those that failed.
fn shortened(entry: &AuditEntry) -> AuditEntry {
    let mut short = entry.clone();
    let cut = |text: &mut String| {
        if text.len() > WORDS {
            text.truncate(text.floor_char_boundary(WORDS));
            text.push('…');
        }
    };
    let more = short.reasons.len().saturating_sub(REASONS);
    short.reasons.truncate(REASONS);
    short.reasons.iter_mut().for_each(cut);
    if more > 0 {
        short.reasons.push(format!("… and {more} more reasons"));
    }
    short.checks.retain(|check| !check.is_fine());
    short.checks.truncate(REASONS);
    for check in &mut short.checks {
        cut(&mut check.found);
        cut(&mut check.expected);
    }
    short
}

/// Lines read at once.
const BATCH: usize = 1000;

/// RFC 3339 in UTC; a time no calendar holds is written as 1970.
pub(crate) fn rfc3339(unix: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp(unix).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    moment.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
