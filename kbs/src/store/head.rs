//! The state head: where the audit trail and the record of changes end, and the sum of every row that counts.
//!
//! The sum is a multiset hash: one keyed hash per row, added modulo 2^256. Whoever lacks the root key cannot find other rows
//! with the same sum, so it shows that a set of rows is whole even where an entry of the record of changes is damaged.
//! Source: Clarke et al., Incremental Multiset Hash Functions (ASIACRYPT 2003), MSet-Add-Hash.

use coffer_verifier::binding::length_prefixed;

use super::{
    AuditFault, StoreError,
    record::{Fields, RowKey},
    rows::{Intent, Kind, Row, Rows, RowsError, Transaction},
};
use crate::keys::{RootKey, RowKind};

/// Where the audit trail and the state log end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Rises when somebody accepts an older state by name.
    pub(super) epoch: u64,
    pub(super) lines: u64,
    pub(super) line_hash: [u8; 32],
    /// The last change before the record of changes begins: a repair writes it anew.
    pub(super) base: u64,
    pub(super) changes: u64,
    pub(super) state_hash: [u8; 32],
    pub(super) live: Live,
}

/// A row as the record of changes has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Number of the change that wrote it.
    pub(super) change: u64,
    pub(super) mac: [u8; 32],
}

impl Head {
    /// Of a store that holds nothing yet.
    pub(super) fn first() -> Self {
        Self { epoch: 1, ..Self::default() }
    }

    pub(super) fn to_body(self) -> Vec<u8> {
        let Self { epoch, lines, line_hash, base, changes, state_hash, live } = &self;
        length_prefixed(&[
            &epoch.to_be_bytes(),
            &lines.to_be_bytes(),
            line_hash,
            &base.to_be_bytes(),
            &changes.to_be_bytes(),
            state_hash,
            &live.0,
        ])
    }

    /// From bytes whose MAC held.
    pub(super) fn from_body(body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let head = Self {
            epoch: fields.unsigned()?,
            lines: fields.unsigned()?,
            line_hash: fields.array()?,
            base: fields.unsigned()?,
            changes: fields.unsigned()?,
            state_hash: fields.array()?,
            live: Live(fields.array()?),
        };
        fields.end(head)
    }

    pub(super) fn to_row(self, root: &RootKey) -> Row {
        let body = self.to_body();
        let mac = root.mac(RowKind::Head, &[&body]).to_vec();
        Row { body, mac }
    }

    pub(super) fn from_row(root: &RootKey, row: &Row) -> Option<Self> {
        root.check_mac(RowKind::Head, &[&row.body], &row.mac).ok()?;
        Self::from_body(&row.body)
    }

    /// Of format 3, which had no epoch and no sum.
    pub(super) fn from_old_row(root: &RootKey, row: &Row) -> Option<Self> {
        root.check_mac(RowKind::OldHead, &[&row.body], &row.mac).ok()?;
        let mut fields = Fields(&row.body);
        let head = Self {
            lines: fields.unsigned()?,
            line_hash: fields.array()?,
            changes: fields.unsigned()?,
            state_hash: fields.array()?,
            ..Self::first()
        };
        fields.end(head)
    }

    /// As the store has it.
    pub(super) async fn read(transaction: &mut dyn Transaction, root: &RootKey) -> Result<Self, StoreError> {
        Self::believed(transaction.get(Kind::Head, &[]).await?, root)
    }

    /// Begins a transaction, and reads what it ends with.
    pub(super) async fn begin(
        rows: &dyn Rows,
        intent: Intent,
    ) -> Result<(Box<dyn Transaction>, Option<Row>), RowsError> {
        rows.begin_with(intent, Kind::Head, &[]).await
    }

    /// From what the store has.
    pub(super) fn believed(row: Option<Row>, root: &RootKey) -> Result<Self, StoreError> {
        row.and_then(|row| Self::from_row(root, &row)).ok_or(StoreError::Audit(AuditFault::Head))
    }
}

/// Sum over every row that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Live([u8; 32]);

impl Live {
    /// Of these rows.
    pub(super) fn of<'a>(root: &RootKey, rows: impl Iterator<Item = (&'a RowKey, &'a Entry)>) -> Self {
        let mut live = Self::default();
        for (key, entry) in rows {
            live.add(root, key, entry);
        }
        live
    }

    pub(super) fn add(&mut self, root: &RootKey, key: &RowKey, entry: &Entry) {
        let mut carry = 0;
        for (at, byte) in self.0.iter_mut().zip(term(root, key, entry)).rev() {
            let sum = u16::from(*at) + u16::from(byte) + carry;
            [_, *at] = sum.to_be_bytes();
            carry = sum >> 8;
        }
    }

    pub(super) fn subtract(&mut self, root: &RootKey, key: &RowKey, entry: &Entry) {
        let mut borrow = 0;
        for (at, byte) in self.0.iter_mut().zip(term(root, key, entry)).rev() {
            let difference = 256 + u16::from(*at) - u16::from(byte) - borrow;
            [_, *at] = difference.to_be_bytes();
            borrow = 1 - (difference >> 8);
        }
    }
}

fn term(root: &RootKey, key: &RowKey, entry: &Entry) -> [u8; 32] {
    let fields: [&[u8]; 4] = [key.kind.name().as_bytes(), &key.to_bytes(), &entry.change.to_be_bytes(), &entry.mac];
    root.mac(RowKind::Live, &fields)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;

    #[test]
    fn a_sum_forgets_the_order_and_takes_back_what_it_was_given() {
        let root = RootKey::new(&Zeroizing::new([7; 32]));
        let rows: Vec<_> = (0..200_u64)
            .map(|n| (RowKey::global(Kind::CrlNumber, &[&n.to_be_bytes()]), Entry { change: n, mac: [n as u8; 32] }))
            .collect();
        let sum = Live::of(&root, rows.iter().map(|(key, entry)| (key, entry)));
        assert_eq!(sum, Live::of(&root, rows.iter().rev().map(|(key, entry)| (key, entry))));
        let mut rest = sum;
        for (key, entry) in rows.iter().skip(1) {
            rest.subtract(&root, key, entry);
            assert_ne!(rest, sum);
        }
        assert_eq!(rest, Live::of(&root, rows.iter().take(1).map(|(key, entry)| (key, entry))));
        let (key, entry) = &rows[0];
        for other in [Entry { change: 1, ..*entry }, Entry { mac: [9; 32], ..*entry }] {
            assert_ne!(rest, Live::of(&root, std::iter::once((key, &other))));
        }
    }

    #[test]
    fn a_head_comes_back_whole_under_its_own_key_only() {
        let root = RootKey::new(&Zeroizing::new([7; 32]));
        let head =
            Head { epoch: 3, lines: 4, line_hash: [5; 32], base: 6, changes: 7, state_hash: [8; 32], ..Head::first() };
        let head = Head { epoch: 3, ..head };
        let row = head.to_row(&root);
        assert_eq!(Head::from_row(&root, &row), Some(head));
        assert_eq!(Head::from_row(&RootKey::new(&Zeroizing::new([8; 32])), &row), None);
        assert_eq!(Head::from_old_row(&root, &row), None);
    }
}
