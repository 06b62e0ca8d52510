//! A line that stands in the place of one that is lost, and what the line behind it must name.
//!
//! Trusts: the root key. Never: believes one that is not under its MAC.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::rows::Row;
use crate::keys::{RootKey, RowKind};

/// What is looked at of it.
#[derive(Deserialize)]
struct Marker {
    event: String,
    stands_for: Option<String>,
}

/// Event of a line in the place of a lost one.
pub(super) const EVENT: &str = "audit.lost";

/// What a row says of the line that was lost in its place.
pub(super) enum Lost {
    /// Nothing: one within a gap.
    Unknown,
    /// SHA-256 of it: the last of a gap.
    Known([u8; 32]),
}

impl Lost {
    /// True if it may have been this line.
    pub(super) fn may_be(&self, hash: [u8; 32]) -> bool {
        match self {
            Self::Unknown => true,
            Self::Known(was) => *was == hash,
        }
    }
}

/// Of a row that stands in the place of a lost line, under this server's MAC.
pub(super) fn lost(root: &RootKey, key: &[u8], row: &Row) -> Option<Lost> {
    // Most lines are none, and a quotation mark in somebody's words is never bare.
    let marked = format!("\"event\":\"{EVENT}\"");
    if !row.body.windows(marked.len()).any(|part| part == marked.as_bytes()) {
        return None;
    }
    root.check_mac(RowKind::AuditLine, &[key, &row.body], &row.mac).ok()?;
    let Marker { event, stands_for } = serde_json::from_slice(&row.body).ok()?;
    let was = stands_for.and_then(|was| hex::decode(was).ok()?.try_into().ok());
    (event == EVENT).then(|| was.map_or(Lost::Unknown, Lost::Known))
}

/// What the line behind this one must name.
pub(super) fn chained(root: &RootKey, key: &[u8], row: &Row) -> [u8; 32] {
    match lost(root, key, row) {
        Some(Lost::Known(was)) => was,
        _ => Sha256::digest(&row.body).into(),
    }
}
