//! The audit trail: one JSON line per decision, each naming the SHA-256 of the line before it, each under a MAC.
//!
//! The chain alone lets anybody who holds an exported trail check it; the MACs stop whoever can write to the file from
//! making a new one, and the head row from cutting lines off. A whole older file is not noticed by the file itself.

use rusqlite::{OptionalExtension as _, params};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{Ledger, Store, StoreError, integer, unsigned};
use crate::keys::RowKind;

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

/// A verified trail in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditSummary {
    /// Number of lines.
    pub lines: u64,
    /// SHA-256 of the last, hex: note it elsewhere and a cut trail shows.
    pub head: String,
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
    /// Release policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Whether simulated evidence may have the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_simulated: Option<bool>,
    /// Whose evidence, or which reference.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub guest: Option<GuestFacts>,
    /// Every reason against.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
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

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    time: String,
    #[serde(flatten)]
    entry: &'a AuditEntry,
    previous: String,
}

/// Where the trail ends.
pub(super) struct Head {
    sequence: u64,
    hash: [u8; 32],
}

impl Head {
    /// Of a trail without lines.
    pub(super) const EMPTY: Self = Self { sequence: 0, hash: [0; 32] };
}

impl Ledger<'_> {
    /// Appends one line; it exists only if this transaction commits. Gives the line as written.
    ///
    /// # Errors
    /// [`StoreError::Audit`] if the end of the trail is not as this server left it.
    pub fn append_audit(&self, entry: &AuditEntry, now_unix: i64) -> Result<String, StoreError> {
        let head = self.audit_head()?;
        let sequence = head.sequence + 1;
        let line = Line { sequence, time: rfc3339(now_unix), entry, previous: hex::encode(head.hash) };
        let line = serde_json::to_string(&line).map_err(|_| StoreError::Range { what: "audit line" })?;
        let mac = self.root.mac(RowKind::AuditLine, &[&sequence.to_be_bytes(), line.as_bytes()]);
        self.transaction.execute(
            "INSERT INTO audit_lines VALUES (?1, ?2, ?3)",
            params![integer("sequence", sequence)?, line, mac],
        )?;
        self.write_audit_head(&Head { sequence, hash: Sha256::digest(line.as_bytes()).into() })?;
        Ok(line)
    }

    /// Lines from a sequence number on, oldest first.
    ///
    /// # Errors
    /// As the store.
    pub fn audit_lines(&self, from_sequence: u64, limit: u32) -> Result<Vec<String>, StoreError> {
        let mut statement =
            self.transaction.prepare("SELECT line FROM audit_lines WHERE sequence >= ?1 ORDER BY sequence LIMIT ?2")?;
        let lines = statement.query_map(params![integer("sequence", from_sequence)?, limit], |row| row.get(0))?;
        Ok(lines.collect::<Result<_, _>>()?)
    }

    pub(super) fn audit_head(&self) -> Result<Head, StoreError> {
        let row = self
            .transaction
            .query_row("SELECT sequence, hash, mac FROM audit_head WHERE only = 1", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?, row.get::<_, Vec<u8>>(2)?))
            })
            .optional()?;
        let fault = || StoreError::Audit(AuditFault::Head);
        let (sequence, hash, mac) = row.ok_or_else(fault)?;
        let sequence = unsigned("sequence", sequence)?;
        let hash: [u8; 32] = hash.try_into().map_err(|_| fault())?;
        self.root.check_mac(RowKind::AuditHead, &[&sequence.to_be_bytes(), &hash], &mac).map_err(|_| fault())?;
        Ok(Head { sequence, hash })
    }

    pub(super) fn write_audit_head(&self, head: &Head) -> Result<(), StoreError> {
        let mac = self.root.mac(RowKind::AuditHead, &[&head.sequence.to_be_bytes(), &head.hash]);
        self.transaction.execute(
            "INSERT OR REPLACE INTO audit_head VALUES (1, ?1, ?2, ?3)",
            params![integer("sequence", head.sequence)?, head.hash, mac],
        )?;
        Ok(())
    }
}

impl Store {
    /// Checks every line's MAC and chain, and the end mark.
    ///
    /// # Errors
    /// [`StoreError::Audit`] names the first fault.
    pub fn verify_audit(&self) -> Result<AuditSummary, StoreError> {
        self.transact(|ledger| {
            let head = ledger.audit_head()?;
            let mut statement =
                ledger.transaction.prepare("SELECT sequence, line, mac FROM audit_lines ORDER BY sequence")?;
            let mut rows = statement.query([])?;
            let (mut count, mut previous) = (0_u64, [0_u8; 32]);
            while let Some(row) = rows.next()? {
                let sequence = unsigned("sequence", row.get(0)?)?;
                let (line, mac): (String, Vec<u8>) = (row.get(1)?, row.get(2)?);
                check_line(ledger, count + 1, sequence, &line, &mac, &previous).map_err(StoreError::Audit)?;
                count = sequence;
                previous = Sha256::digest(line.as_bytes()).into();
            }
            if count != head.sequence || previous != head.hash {
                return Err(StoreError::Audit(AuditFault::End { expected: head.sequence, found: count }));
            }
            Ok(AuditSummary { lines: count, head: hex::encode(previous) })
        })
    }
}

fn check_line(
    ledger: &Ledger<'_>,
    expected: u64,
    sequence: u64,
    line: &str,
    mac: &[u8],
    previous: &[u8; 32],
) -> Result<(), AuditFault> {
    if sequence != expected {
        return Err(AuditFault::Gap { expected, found: sequence });
    }
    ledger
        .root
        .check_mac(RowKind::AuditLine, &[&sequence.to_be_bytes(), line.as_bytes()], mac)
        .map_err(|_| AuditFault::Line { sequence })?;
    let parsed: serde_json::Value = serde_json::from_str(line).map_err(|_| AuditFault::Line { sequence })?;
    if parsed.get("previous").and_then(|hash| hash.as_str()) != Some(hex::encode(previous).as_str()) {
        return Err(AuditFault::Chain { sequence });
    }
    Ok(())
}

/// RFC 3339 in UTC; a time no calendar holds is written as 1970.
fn rfc3339(unix: i64) -> String {
    let moment = time::OffsetDateTime::from_unix_timestamp(unix).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    moment.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
