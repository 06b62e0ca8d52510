//! The ledger: what makes untrusted rows into state that this server wrote, in the order it wrote it.
//!
//! Every change of a row that decides anything is an entry of the state log, and entries are chained; the head, under a MAC,
//! says where that chain and the audit trail end. From the chain the ledger knows every key, and the MAC of the row under
//! it, so that a row that was edited, put back, removed, swapped or added is named when it is read, and stops only what it
//! touches. [`Ledger::read`] is the one function that reads such a row, [`Ledger::write`] the one that writes.
//!
//! Trusts: the root key, and the memory of this process. Believes no row before its MAC holds at its place in the chain.
//! Never: takes a list from what a query returned, acts on a head older than one it has seen.
//! Not noticed here: a whole older database put in place while no server runs.

use std::{collections::BTreeMap, sync::Arc};

use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    AuditFault, StateFault, StoreError,
    record::{Fields, Record, RowKey},
    rows::{Intent, Kind, Row, Rows, Transaction},
};
use crate::{
    keys::{KeyError, RootKey, RowKind},
    tenant::Tenant,
};
use coffer_verifier::binding::length_prefixed;

/// The open store. One writer at a time.
pub struct Store {
    rows: Arc<dyn Rows>,
    root: Arc<RootKey>,
    known: Arc<Mutex<Known>>,
}

/// One transaction's view. Everything done through it is committed together, by [`Ledger::commit`], or not at all.
pub struct Ledger {
    transaction: Box<dyn Transaction>,
    pub(super) root: Arc<RootKey>,
    known: OwnedMutexGuard<Known>,
    pub(super) head: Head,
    changed: BTreeMap<RowKey, Option<Entry>>,
    seen: Seen,
}

/// What a view was made from: when none of it has changed since, a decision on it still stands.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    changes: u64,
    rows: Vec<(RowKey, Option<Entry>)>,
    lists: Vec<(RowKey, Vec<RowKey>)>,
}

/// Every key, and the row that counts under it.
#[derive(Clone, Default)]
struct Known {
    head: Head,
    rows: BTreeMap<RowKey, Entry>,
}

/// A row as the state log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// Number of the change that wrote it.
    change: u64,
    mac: [u8; 32],
}

/// Where the audit trail and the state log end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) lines: u64,
    pub(super) line_hash: [u8; 32],
    pub(super) changes: u64,
    pub(super) state_hash: [u8; 32],
}

impl Store {
    /// Begins a store in rows that hold nothing yet.
    ///
    /// # Errors
    /// [`StoreError::Rows`].
    pub async fn create(rows: Arc<dyn Rows>, root: RootKey) -> Result<Self, StoreError> {
        let store = Self { rows, root: Arc::new(root), known: Arc::default() };
        let transaction = store.rows.begin(Intent::Write).await?;
        let mut ledger = store.ledger(transaction, store.known.clone().lock_owned().await, Head::default());
        ledger.put_head().await?;
        ledger.commit().await?;
        Ok(store)
    }

    /// Opens what an earlier [`Store::create`] began, and learns every key from the state log.
    ///
    /// # Errors
    /// [`StoreError::Audit`] or [`StoreError::State`] if it is not what this key wrote, or [`StoreError::Rows`].
    pub async fn open(rows: Arc<dyn Rows>, root: RootKey) -> Result<Self, StoreError> {
        let store = Self { rows, root: Arc::new(root), known: Arc::default() };
        store.read().await?;
        Ok(store)
    }

    /// One view of everything.
    ///
    /// # Errors
    /// As [`Store::open`]; also [`StateFault::SetBack`] if the rows are older than what this process has seen.
    pub async fn read(&self) -> Result<Ledger, StoreError> {
        self.begin(Intent::Read).await
    }

    /// A view that may write; there is one at a time.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn write(&self) -> Result<Ledger, StoreError> {
        self.begin(Intent::Write).await
    }

    async fn begin(&self, intent: Intent) -> Result<Ledger, StoreError> {
        let mut known = self.known.clone().lock_owned().await;
        let mut transaction = self.rows.begin(intent).await?;
        let head = head(&mut *transaction, &self.root).await?;
        if head != known.head {
            // Another process wrote, or a commit of ours happened whose answer was lost.
            *known = known.caught_up(&mut *transaction, &self.root, head).await?;
        }
        Ok(self.ledger(transaction, known, head))
    }

    /// A ledger over rows that hold nothing yet, in a transaction that somebody else began.
    pub(super) async fn first(&self, transaction: Box<dyn Transaction>) -> Ledger {
        self.ledger(transaction, self.known.clone().lock_owned().await, Head::default())
    }

    /// Without a look at the rows.
    pub(super) fn unread(rows: Arc<dyn Rows>, root: RootKey) -> Self {
        Self { rows, root: Arc::new(root), known: Arc::default() }
    }

    fn ledger(&self, transaction: Box<dyn Transaction>, known: OwnedMutexGuard<Known>, head: Head) -> Ledger {
        let seen = Seen { changes: head.changes, ..Seen::default() };
        Ledger { transaction, root: self.root.clone(), known, head, changed: BTreeMap::new(), seen }
    }
}

impl Known {
    /// With what was written since.
    async fn caught_up(
        &self,
        transaction: &mut dyn Transaction,
        root: &RootKey,
        head: Head,
    ) -> Result<Self, StoreError> {
        let before = self.head;
        let fork = head.changes == before.changes && head.state_hash != before.state_hash
            || head.lines == before.lines && head.line_hash != before.line_hash;
        if head.changes < before.changes || head.lines < before.lines || fork {
            return Err(StateFault::SetBack { seen: before.lines, found: head.lines }.into());
        }
        let mut next = self.clone();
        while next.head.changes < head.changes {
            let from = (next.head.changes + 1).to_be_bytes();
            let entries = transaction.from(Kind::StateEntry, &from, BATCH).await?;
            if entries.is_empty() {
                return Err(StateFault::End { expected: head.changes, found: next.head.changes }.into());
            }
            for (key, row) in entries {
                if next.head.changes == head.changes {
                    break;
                }
                next.take(root, &key, &row)?;
            }
        }
        if next.head.state_hash != head.state_hash {
            return Err(StateFault::Chain.into());
        }
        next.head = head;
        Ok(next)
    }

    /// Takes the next entry.
    fn take(&mut self, root: &RootKey, key: &[u8], row: &Row) -> Result<(), StateFault> {
        let number = self.head.changes + 1;
        let fault = StateFault::Entry { number };
        if key != number.to_be_bytes() || root.check_mac(RowKind::StateEntry, &[key, &row.body], &row.mac).is_err() {
            return Err(fault);
        }
        let (key, mac) = parse_entry(&row.body).ok_or(fault)?;
        match mac {
            Some(mac) => self.rows.insert(key, Entry { change: number, mac }),
            None => self.rows.remove(&key),
        };
        self.head.changes = number;
        self.head.state_hash = chained(&self.head.state_hash, &row.body);
        Ok(())
    }
}

impl Ledger {
    /// Reads a row that decides something: the one function that does.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] names a row that is not as the ledger knows it.
    async fn read(&mut self, key: &RowKey) -> Result<Option<Vec<u8>>, StoreError> {
        let known = self.known(key);
        self.seen.rows.push((key.clone(), known));
        let bytes = key.to_bytes();
        let row = self.transaction.get(key.kind, &bytes).await?;
        let tampered = |source| StoreError::Tampered { what: key.what(), source };
        match (known, row) {
            (None, None) => Ok(None),
            (None, Some(_)) => Err(tampered(KeyError::Unknown)),
            (Some(_), None) => Err(tampered(KeyError::Missing)),
            (Some(entry), Some(row)) => {
                let fields = fields(key.kind, &bytes, &row.body, entry.change);
                // The row's own MAC must be the one of the log: an older row carries an older one.
                self.root
                    .check_mac(RowKind::Row, &fields.each_ref().map(Vec::as_slice), &row.mac)
                    .and_then(|()| if row.mac == entry.mac { Ok(()) } else { Err(KeyError::Mac) })
                    .map_err(tampered)?;
                Ok(Some(row.body))
            }
        }
    }

    /// Writes or removes a row that decides something: the one function that does.
    async fn write(&mut self, key: RowKey, body: Option<Vec<u8>>) -> Result<(), StoreError> {
        let number = self.head.changes + 1;
        let bytes = key.to_bytes();
        let entry = if let Some(body) = body {
            let fields = fields(key.kind, &bytes, &body, number);
            let mac = self.root.mac(RowKind::Row, &fields.each_ref().map(Vec::as_slice));
            self.transaction.put(key.kind, &bytes, Row { body, mac: mac.to_vec() }).await?;
            Some(Entry { change: number, mac })
        } else {
            self.transaction.remove(key.kind, &bytes).await?;
            None
        };
        self.log(key, entry).await
    }

    /// Lists a key whose row nobody can believe any more, so that it is named and not forgotten.
    pub(super) async fn condemn(&mut self, key: RowKey) -> Result<(), StoreError> {
        let change = self.head.changes + 1;
        self.transaction.put(key.kind, &key.to_bytes(), Row { body: Vec::new(), mac: vec![0; 32] }).await?;
        self.log(key, Some(Entry { change, mac: [0; 32] })).await
    }

    async fn log(&mut self, key: RowKey, entry: Option<Entry>) -> Result<(), StoreError> {
        let number = (self.head.changes + 1).to_be_bytes();
        let mac: &[u8] = entry.as_ref().map_or(&[], |entry| &entry.mac);
        let body = length_prefixed(&[key.kind.name().as_bytes(), &key.to_bytes(), mac]);
        let row_mac = self.root.mac(RowKind::StateEntry, &[&number, &body]);
        self.head.changes += 1;
        self.head.state_hash = chained(&self.head.state_hash, &body);
        self.transaction.put(Kind::StateEntry, &number, Row { body, mac: row_mac.to_vec() }).await?;
        self.changed.insert(key, entry);
        Ok(())
    }

    /// The record under a key.
    pub(super) async fn record<R: Record>(&mut self, key: &RowKey) -> Result<Option<R>, StoreError> {
        let Some(body) = self.read(key).await? else { return Ok(None) };
        let foreign = || StoreError::Tampered { what: key.what(), source: KeyError::Encoding };
        R::decode(key, &body).map(Some).ok_or_else(foreign)
    }

    /// Puts a record under a key.
    pub(super) async fn put_record(&mut self, key: RowKey, record: &impl Record) -> Result<(), StoreError> {
        self.write(key, Some(record.encode())).await
    }

    /// Removes what lies under a key. True if something did.
    pub(super) async fn remove_record(&mut self, key: RowKey) -> Result<bool, StoreError> {
        if self.known(&key).is_none() {
            return Ok(false);
        }
        self.write(key, None).await?;
        Ok(true)
    }

    /// True if there is something under a key, believed or not.
    pub(super) fn has(&mut self, key: &RowKey) -> bool {
        let known = self.known(key);
        self.seen.rows.push((key.clone(), known));
        known.is_some()
    }

    /// Every key of a kind and tenant, in order: from what the ledger knows, not from what a query would return.
    pub(super) fn keys(&mut self, kind: Kind, tenant: &Tenant) -> Vec<RowKey> {
        let first = RowKey::first(kind, tenant);
        let keys = self.listed(&first);
        self.seen.lists.push((first, keys.clone()));
        keys
    }

    /// The records under some keys, with what is wrong with a row where a record should be.
    pub(super) async fn records<R: Record>(
        &mut self,
        keys: Vec<RowKey>,
    ) -> Result<Vec<Result<R, StoreError>>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            match self.record(&key).await {
                Ok(record) => found.extend(record.map(Ok)),
                Err(error @ StoreError::Tampered { .. }) => found.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// What this view was made from.
    pub fn into_seen(self) -> Seen {
        self.seen
    }

    /// True if nothing that was seen has changed since.
    pub fn is_as(&self, seen: &Seen) -> bool {
        self.head.changes == seen.changes
            || seen.rows.iter().all(|(key, entry)| self.known(key) == *entry)
                && seen.lists.iter().all(|(first, keys)| self.listed(first) == *keys)
    }

    /// Makes all of it last.
    ///
    /// # Errors
    /// [`StoreError::Rows`]: then nothing is known to be written, and nothing may leave.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        if self.head != self.known.head {
            self.put_head().await?;
        }
        let Self { transaction, mut known, head, changed, .. } = self;
        transaction.commit().await?;
        known.head = head;
        for (key, entry) in changed {
            match entry {
                Some(entry) => known.rows.insert(key, entry),
                None => known.rows.remove(&key),
            };
        }
        Ok(())
    }

    /// Checks every row that decides something. Gives their number.
    pub(super) async fn check_rows(&mut self) -> Result<u64, StoreError> {
        let keys: Vec<RowKey> = self.known.rows.keys().cloned().collect();
        for key in &keys {
            self.read(key).await?;
        }
        Ok(keys.len() as u64)
    }

    pub(super) async fn put_line(&mut self, number: u64, row: Row) -> Result<(), StoreError> {
        Ok(self.transaction.put(Kind::AuditLine, &number.to_be_bytes(), row).await?)
    }

    pub(super) async fn lines(&mut self, from: u64, limit: usize) -> Result<Vec<(Vec<u8>, Row)>, StoreError> {
        Ok(self.transaction.from(Kind::AuditLine, &from.to_be_bytes(), limit).await?)
    }

    async fn put_head(&mut self) -> Result<(), StoreError> {
        let Head { lines, line_hash, changes, state_hash } = &self.head;
        let body = length_prefixed(&[&lines.to_be_bytes(), line_hash, &changes.to_be_bytes(), state_hash]);
        let mac = self.root.mac(RowKind::Head, &[&body]).to_vec();
        Ok(self.transaction.put(Kind::Head, &[], Row { body, mac }).await?)
    }

    fn known(&self, key: &RowKey) -> Option<Entry> {
        self.changed.get(key).copied().unwrap_or_else(|| self.known.rows.get(key).copied())
    }

    fn listed(&self, first: &RowKey) -> Vec<RowKey> {
        let known = self.known.rows.range(first.clone()..).map(|(key, _)| key).take_while(|key| key.is_beside(first));
        let mut keys: std::collections::BTreeSet<RowKey> = known.cloned().collect();
        for (key, entry) in self.changed.range(first.clone()..).take_while(|(key, _)| key.is_beside(first)) {
            if entry.is_some() {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        keys.into_iter().collect()
    }
}

async fn head(transaction: &mut dyn Transaction, root: &RootKey) -> Result<Head, StoreError> {
    let fault = || StoreError::Audit(AuditFault::Head);
    let row = transaction.get(Kind::Head, &[]).await?.ok_or_else(fault)?;
    root.check_mac(RowKind::Head, &[&row.body], &row.mac).map_err(|_| fault())?;
    let mut fields = Fields(&row.body);
    let mut parse = || {
        Some(Head {
            lines: fields.unsigned()?,
            line_hash: fields.array()?,
            changes: fields.unsigned()?,
            state_hash: fields.array()?,
        })
    };
    parse().ok_or_else(fault)
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

/// What a row's MAC covers: at which change, under which key, what.
fn fields(kind: Kind, key: &[u8], body: &[u8], change: u64) -> [Vec<u8>; 4] {
    [kind.name().into(), key.into(), body.into(), change.to_be_bytes().into()]
}

fn chained(before: &[u8; 32], entry: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(before).chain_update(entry).finalize().into()
}

/// Entries read at once.
const BATCH: usize = 1000;
