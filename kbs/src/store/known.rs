//! What the ledger knows: every key, and the row that counts under it, learnt from the record of changes.
//!
//! Where an entry of the record is damaged, the rows themselves can still show that nothing is missing: the head's sum holds for
//! one set of rows only. Then everything works, the entry is named, and `state repair` writes the record anew.
//! Trusts: the root key. Believes no entry before its MAC holds, no set before chain or sum do.
//! Never: goes on with a set of rows that neither shows.

use std::{collections::BTreeMap, sync::Arc};

use coffer_verifier::binding::length_prefixed;
use sha2::{Digest as _, Sha256};

use super::{
    StateFault, StoreError,
    checkpoint::{Checkpoint, CheckpointError},
    head::{Entry, Head, Live},
    record::{Fields, RowKey},
    rows::{Kind, Row, Transaction},
};
use crate::keys::{KeyError, RootKey, RowKind};

/// Every key, and the row that counts under it.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) root: Arc<RootKey>,
    pub(super) head: Head,
    /// Shared with every view: it is copied only where one is still looking when a row changes.
    pub(super) rows: Arc<BTreeMap<RowKey, Entry>>,
    /// Entries of the record of changes that are not believed, although the rows are whole.
    pub(super) damaged: Vec<u64>,
}

impl Known {
    pub(super) fn nothing(root: RootKey) -> Self {
        Self { root: Arc::new(root), head: Head::default(), rows: Arc::default(), damaged: Vec::new() }
    }

    /// What counts under a key from now on, or nothing.
    pub(super) fn set(&mut self, key: RowKey, entry: Option<Entry>) {
        let rows = Arc::make_mut(&mut self.rows);
        match entry {
            Some(entry) => rows.insert(key, entry),
            None => rows.remove(&key),
        };
    }

    /// With what was written since. A history that does not lead through `watched` is refused.
    pub(super) async fn caught_up(
        &self,
        transaction: &mut dyn Transaction,
        head: Head,
        watched: Option<&Checkpoint>,
    ) -> Result<Self, StoreError> {
        let before = self.head;
        let fork = head.changes == before.changes && head.state_hash != before.state_hash
            || head.lines == before.lines && head.line_hash != before.line_hash;
        if head.epoch < before.epoch || head.changes < before.changes || head.lines < before.lines || fork {
            return Err(StateFault::SetBack { seen: before.lines, found: head.lines }.into());
        }
        let mut next = self.clone();
        if before.changes < head.base || before.epoch == 0 {
            next.rows = Arc::default();
            next.damaged.clear();
            (next.head.changes, next.head.state_hash) = (head.base, [0; 32]);
        }
        let replayed = next.replay(transaction, &head, watched).await?;
        if !replayed.damaged.is_empty() || replayed.chain != Some(head.state_hash) {
            next.settle(transaction, &head, &replayed).await?;
            next.damaged.extend(replayed.damaged);
        }
        next.head = head;
        Ok(next)
    }

    async fn replay(
        &mut self,
        transaction: &mut dyn Transaction,
        head: &Head,
        watched: Option<&Checkpoint>,
    ) -> Result<Replayed, StoreError> {
        let mut replayed = Replayed { at: self.head.changes, chain: Some(self.head.state_hash), damaged: Vec::new() };
        replayed.passes(watched, head)?;
        let mut from = replayed.at + 1;
        while from <= head.changes {
            let entries = transaction.from(Kind::StateEntry, &from.to_be_bytes(), BATCH).await?;
            let last = entries.len() < BATCH;
            for (key, row) in entries {
                let Ok(number) = key.as_slice().try_into().map(u64::from_be_bytes) else { continue };
                if number > head.changes {
                    break;
                }
                replayed.missing_until(number)?;
                match self.entry(&key, &row) {
                    Some((key, entry)) => {
                        self.set(key, entry.map(|mac| Entry { change: number, mac }));
                        replayed.chain = replayed.chain.map(|chain| chained(&chain, &row.body));
                    }
                    None => replayed.damage(number)?,
                }
                replayed.at = number;
                replayed.passes(watched, head)?;
            }
            if last {
                break;
            }
            from = replayed.at + 1;
        }
        replayed.missing_until(head.changes + 1)?;
        Ok(replayed)
    }

    fn entry(&self, key: &[u8], row: &Row) -> Option<(RowKey, Option<[u8; 32]>)> {
        self.root.check_mac(RowKind::StateEntry, &[key, &row.body], &row.mac).ok()?;
        parse_entry(&row.body)
    }

    /// Looks for the set of rows that has the head's sum.
    async fn settle(
        &mut self,
        transaction: &mut dyn Transaction,
        head: &Head,
        replayed: &Replayed,
    ) -> Result<(), StoreError> {
        let mut there = std::collections::BTreeSet::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.decides()) {
            for (bytes, row) in every(transaction, kind).await? {
                let Some(key) = RowKey::from_bytes(kind, &bytes) else { continue };
                let known = self.rows.get(&key).copied();
                if known.is_none_or(|known| known.mac != row.mac.as_slice()) {
                    let written = replayed.damaged.iter().rev().find(|number| {
                        known.is_none_or(|known| known.change < **number)
                            && check_row(&self.root, &key, &bytes, &row, **number).is_ok()
                    });
                    if let (Some(number), Ok(mac)) = (written, row.mac.as_slice().try_into()) {
                        self.set(key.clone(), Some(Entry { change: *number, mac }));
                    }
                }
                there.insert(key);
            }
        }
        let whole = |rows: &BTreeMap<RowKey, Entry>| Live::of(&self.root, rows.iter()) == head.live;
        if whole(&self.rows) {
            return Ok(());
        }
        // What a damaged entry took away is not there either.
        Arc::make_mut(&mut self.rows).retain(|key, _| there.contains(key));
        if Live::of(&self.root, self.rows.iter()) == head.live {
            return Ok(());
        }
        Err(match replayed.damaged.first() {
            Some(number) => StateFault::Entry { number: *number }.into(),
            None => StateFault::Chain.into(),
        })
    }
}

/// How far a replay came.
struct Replayed {
    at: u64,
    /// Nothing once an entry is damaged.
    chain: Option<[u8; 32]>,
    damaged: Vec<u64>,
}

impl Replayed {
    fn damage(&mut self, number: u64) -> Result<(), StateFault> {
        self.chain = None;
        self.damaged.push(number);
        // A record that is gone as a whole is not looked for entry by entry.
        let first = self.damaged.first().copied().unwrap_or(number);
        if self.damaged.len() > DAMAGED { Err(StateFault::Entry { number: first }) } else { Ok(()) }
    }

    fn missing_until(&mut self, number: u64) -> Result<(), StateFault> {
        while self.at + 1 < number {
            self.damage(self.at + 1)?;
            self.at += 1;
        }
        Ok(())
    }

    /// At the change of the checkpoint the chain is the checkpoint's.
    fn passes(&self, watched: Option<&Checkpoint>, head: &Head) -> Result<(), CheckpointError> {
        let Some(watched) = watched.filter(|watched| watched.0.changes == self.at && self.at < head.changes) else {
            return Ok(());
        };
        // A damaged record is settled by the head's sum, and the head stands behind the checkpoint's line.
        if self.chain.is_some_and(|chain| chain != watched.0.state_hash) {
            return Err(CheckpointError::Beside { found: Checkpoint::from(head).position(), seen: watched.position() });
        }
        Ok(())
    }
}

/// Every row of a kind.
pub(super) async fn every(transaction: &mut dyn Transaction, kind: Kind) -> Result<Vec<(Vec<u8>, Row)>, StoreError> {
    let (mut all, mut from) = (Vec::new(), Vec::new());
    loop {
        let batch = transaction.from(kind, &from, BATCH).await?;
        let last = batch.len() < BATCH;
        if let Some((key, _)) = batch.last() {
            from.clone_from(key);
            from.push(0);
        }
        all.extend(batch);
        if last {
            return Ok(all);
        }
    }
}

/// What lies behind the end mark. A commit writes both or neither: genuine rows there show that the end mark was set back.
pub(super) async fn beyond(
    transaction: &mut dyn Transaction,
    root: &RootKey,
    head: &Head,
) -> Result<Vec<(Kind, Vec<u8>, bool)>, StoreError> {
    let mut found = Vec::new();
    for (kind, written_as, end) in
        [(Kind::StateEntry, RowKind::StateEntry, head.changes), (Kind::AuditLine, RowKind::AuditLine, head.lines)]
    {
        for (key, row) in transaction.from(kind, &end.saturating_add(1).to_be_bytes(), BATCH).await? {
            let genuine = root.check_mac(written_as, &[&key, &row.body], &row.mac).is_ok();
            found.push((kind, key, genuine));
        }
    }
    Ok(found)
}

/// Checks a row's own MAC at the change that wrote it.
pub(super) fn check_row(root: &RootKey, key: &RowKey, bytes: &[u8], row: &Row, change: u64) -> Result<(), KeyError> {
    let fields = row_fields(key.kind, bytes, &row.body, change);
    root.check_mac(RowKind::Row, &fields.each_ref().map(Vec::as_slice), &row.mac)
}

/// What a row's MAC covers: at which change, under which key, what.
pub(super) fn row_fields(kind: Kind, key: &[u8], body: &[u8], change: u64) -> [Vec<u8>; 4] {
    [kind.name().into(), key.into(), body.into(), change.to_be_bytes().into()]
}

/// An entry of the record of changes: which row, and the MAC it has from now on, or none where it was removed.
pub(super) fn entry_body(key: &RowKey, entry: Option<&Entry>) -> Vec<u8> {
    let mac: &[u8] = entry.map_or(&[], |entry| &entry.mac);
    length_prefixed(&[key.kind.name().as_bytes(), &key.to_bytes(), mac])
}

fn parse_entry(body: &[u8]) -> Option<(RowKey, Option<[u8; 32]>)> {
    let mut fields = Fields(body);
    let kind = Kind::from_name(&fields.text()?)?;
    let key = RowKey::from_bytes(kind, fields.bytes()?)?;
    let mac = match fields.bytes()? {
        [] => None,
        mac => Some(mac.try_into().ok()?),
    };
    fields.end((key, mac))
}

pub(super) fn chained(before: &[u8; 32], entry: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(before).chain_update(entry).finalize().into()
}

/// Rows read at once.
const BATCH: usize = 1000;
/// Damaged entries that are looked for one by one.
const DAMAGED: usize = 64;
