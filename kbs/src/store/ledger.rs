//! The ledger: what makes untrusted rows into state that this server wrote, in the order it wrote it.
//!
//! Every change of a row that decides anything is an entry of the state log, and entries are chained; the head, under a MAC,
//! says where that chain and the audit trail end. From the chain the ledger knows every key, and the MAC of the row under
//! it, so that a row that was edited, put back, removed, swapped or added is named when it is read, and stops only what it
//! touches. [`Ledger::read`] is the one function that reads such a row, [`Ledger::write`] the one that writes.
//!
//! Trusts: the root key, the memory of this process, and the checkpoint. Believes no row before its MAC holds at its place
//! in the chain.
//! Never: takes a list from what a query returned, acts on a head older than one it or the checkpoint has seen.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{
    StateFault, StoreError,
    checkpoint::{Checkpoint, CheckpointError, Follower, Position, Witness},
    head::{Entry, Head},
    known::{Known, beyond, chained, check_row, entry_body, row_fields},
    record::{Record, RowKey},
    rows::{Intent, Kind, Row, Rows, Transaction},
};
use crate::{
    keys::{KeyError, RootKey, RowKind},
    tenant::Tenant,
};

/// The open store. One writer at a time.
pub struct Store {
    pub(super) rows: Arc<dyn Rows>,
    pub(super) known: Arc<Mutex<Known>>,
    pub(super) follower: Arc<Follower>,
    /// The last change that this process has seen.
    latest: Arc<AtomicU64>,
}

/// One transaction's view. Everything done through it is committed together, by [`Ledger::commit`], or not at all.
pub struct Ledger {
    pub(super) transaction: Box<dyn Transaction>,
    pub(super) root: Arc<RootKey>,
    pub(super) known: OwnedMutexGuard<Known>,
    pub(super) head: Head,
    follower: Arc<Follower>,
    latest: Arc<AtomicU64>,
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

impl Store {
    /// Begins a store in rows that hold nothing yet, and its checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Rows`] or [`StoreError::Checkpoint`].
    pub async fn create(rows: Arc<dyn Rows>, root: RootKey, witness: Witness) -> Result<Self, StoreError> {
        let store = Self::unread(rows, root, witness);
        let transaction = store.rows.begin(Intent::Write).await?;
        let mut ledger = store.first(transaction).await;
        ledger.put_head().await?;
        let (root, head) = (ledger.root.clone(), ledger.head);
        ledger.commit_unwitnessed().await?;
        store.follower.begin(&root, &head, false).await?;
        Ok(store)
    }

    /// Opens what an earlier [`Store::create`] began, and learns every key from the state log.
    ///
    /// # Errors
    /// [`StoreError::Audit`] or [`StoreError::State`] if it is not what this key wrote, [`StoreError::Checkpoint`] if it is
    /// older than what was seen of it, or [`StoreError::Rows`].
    pub async fn open(rows: Arc<dyn Rows>, root: RootKey, witness: Witness) -> Result<Self, StoreError> {
        let store = Self::unread(rows, root, witness);
        let mut known = store.known.clone().lock_owned().await;
        // Asked for before the rows: a server that runs beside moves it only forwards.
        let checkpoint = store.checkpoint(&known.root).await?;
        let mut transaction = store.rows.begin(Intent::Read).await?;
        let head = Head::read(&mut *transaction, &known.root).await?;
        *known = opened(&known, &mut *transaction, head, checkpoint.as_ref()).await?;
        store.latest.store(head.changes, Ordering::Release);
        if let Some(first) = known.damaged.first() {
            tracing::error!(
                entry = first,
                entries = known.damaged.len(),
                "the record of changes is damaged; the rows are whole, and `coffer-kbs state repair` writes it anew"
            );
        }
        drop(known);
        Ok(store)
    }

    /// The checkpoint; nothing where nobody keeps one.
    pub(super) async fn checkpoint(&self, root: &RootKey) -> Result<Option<Checkpoint>, StoreError> {
        let Witness::Kept(keeper) = self.follower.witness() else { return Ok(None) };
        match Checkpoint::newest(&**keeper, root).await? {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(CheckpointError::Missing { place: keeper.place() }.into()),
        }
    }

    /// One view of everything.
    ///
    /// # Errors
    /// As [`Store::open`]; also [`StateFault::SetBack`](super::StateFault::SetBack) if the rows are older than what this
    /// process has seen.
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
        let head = Head::read(&mut *transaction, &known.root).await?;
        if head != known.head {
            // Another process wrote, or a commit of ours happened whose answer was lost.
            *known = known.caught_up(&mut *transaction, head, None).await?;
            self.latest.store(head.changes, Ordering::Release);
        }
        Ok(self.ledger(transaction, known, head))
    }

    /// The last change that this process has seen: what was found out at this change still holds. Takes no lock.
    pub fn changes(&self) -> u64 {
        self.latest.load(Ordering::Acquire)
    }

    /// Where the history ends.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn position(&self) -> Result<Position, StoreError> {
        Ok(Checkpoint::from(&self.read().await?.head).position())
    }

    /// Writes what the checkpoint lags behind: before a server ends.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`].
    pub async fn settle(&self) -> Result<(), StoreError> {
        Ok(self.follower.settle().await?)
    }

    /// A ledger over rows that hold nothing yet, in a transaction that somebody else began.
    pub(super) async fn first(&self, transaction: Box<dyn Transaction>) -> Ledger {
        self.ledger(transaction, self.known.clone().lock_owned().await, Head::first())
    }

    /// Without a look at the rows.
    pub(super) fn unread(rows: Arc<dyn Rows>, root: RootKey, witness: Witness) -> Self {
        let known = Arc::new(Mutex::new(Known::nothing(root)));
        Self { rows, known, follower: Arc::new(Follower::new(witness)), latest: Arc::default() }
    }

    pub(super) fn ledger(
        &self,
        transaction: Box<dyn Transaction>,
        known: OwnedMutexGuard<Known>,
        head: Head,
    ) -> Ledger {
        let seen = Seen { changes: head.changes, ..Seen::default() };
        let (root, follower, latest) = (known.root.clone(), self.follower.clone(), self.latest.clone());
        Ledger { transaction, root, known, head, follower, latest, changed: BTreeMap::new(), seen }
    }
}

/// What a head that is believed stands for, if its history leads through the checkpoint.
pub(super) async fn opened(
    before: &Known,
    transaction: &mut dyn Transaction,
    head: Head,
    checkpoint: Option<&Checkpoint>,
) -> Result<Known, StoreError> {
    if let Some(checkpoint) = checkpoint {
        checkpoint.is_reached_by(&head)?;
        if checkpoint.0.lines < head.lines && !line_is_there(transaction, &before.root, checkpoint).await? {
            let (found, seen) = (Checkpoint::from(&head).position(), checkpoint.position());
            return Err(CheckpointError::Beside { found, seen }.into());
        }
    }
    if beyond(transaction, &before.root, &head).await?.iter().any(|(.., genuine)| *genuine) {
        return Err(StateFault::Beyond { lines: head.lines, changes: head.changes }.into());
    }
    before.caught_up(transaction, head, checkpoint).await
}

/// True if the trail leads through the checkpoint's line. The line after it names it too, should the line itself be damaged.
async fn line_is_there(
    transaction: &mut dyn Transaction,
    root: &RootKey,
    checkpoint: &Checkpoint,
) -> Result<bool, StoreError> {
    use super::audit::{line_hash, previous_of};
    let Head { lines, line_hash: hash, .. } = checkpoint.0;
    let key = lines.to_be_bytes();
    let at = transaction.get(Kind::AuditLine, &key).await?;
    if lines == 0 || at.is_some_and(|row| line_hash(&row) == hash) {
        return Ok(true);
    }
    let next = lines + 1;
    let row = transaction.get(Kind::AuditLine, &next.to_be_bytes()).await?;
    Ok(row.and_then(|row| previous_of(root, next, &row)).is_some_and(|named| named == hash))
}

impl Ledger {
    /// Reads a row that decides something: the one function that does.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] names a row that is not as the ledger knows it.
    pub(super) async fn read(&mut self, key: &RowKey) -> Result<Option<Vec<u8>>, StoreError> {
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
                // The row's own MAC must be the one of the log: an older row carries an older one.
                check_row(&self.root, key, &bytes, &row, entry.change)
                    .and_then(|()| if row.mac == entry.mac { Ok(()) } else { Err(KeyError::Mac) })
                    .map_err(tampered)?;
                Ok(Some(row.body))
            }
        }
    }

    /// Writes or removes a row that decides something: the one function that does.
    pub(super) async fn write(&mut self, key: RowKey, body: Option<Vec<u8>>) -> Result<(), StoreError> {
        let number = self.head.changes + 1;
        let bytes = key.to_bytes();
        let entry = if let Some(body) = body {
            let fields = row_fields(key.kind, &bytes, &body, number);
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
        let body = entry_body(&key, entry.as_ref());
        if let Some(before) = self.known(&key) {
            self.head.live.subtract(&self.root, &key, &before);
        }
        if let Some(entry) = &entry {
            self.head.live.add(&self.root, &key, entry);
        }
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
        self.keys_beside(RowKey::first(kind, tenant))
    }

    /// Every key of a kind whose rows are the broker's own.
    pub(super) fn global_keys(&mut self, kind: Kind) -> Vec<RowKey> {
        self.keys_beside(RowKey::global(kind, &[]))
    }

    /// Every tenant that some row belongs to.
    pub fn tenants_with_rows(&self) -> std::collections::BTreeSet<Tenant> {
        self.known.rows.keys().filter_map(RowKey::tenant).collect()
    }

    fn keys_beside(&mut self, first: RowKey) -> Vec<RowKey> {
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

    /// The last change of this view.
    pub fn changes(&self) -> u64 {
        self.head.changes
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

    /// Makes all of it last, here and in the checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Rows`]: then nothing is known to be written, and nothing may leave. [`StoreError::Checkpoint`]: then
    /// nothing was written if the checkpoint could not be moved before, else it was and nobody may be told so.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        if self.head == self.known.head {
            return self.commit_unwitnessed().await.map(|_| ());
        }
        self.follower.ready().await?;
        self.put_head().await?;
        let decides = self.head.changes != self.known.head.changes || self.head.epoch != self.known.head.epoch;
        let (follower, root, head) = (self.follower.clone(), self.root.clone(), self.head);
        // Held until the checkpoint has moved, so that it moves in the order of the commits.
        let _known = self.commit_unwitnessed().await?;
        Ok(follower.moved(&root, &head, decides).await?)
    }

    /// Makes all of it last, and moves no checkpoint.
    pub(super) async fn commit_unwitnessed(self) -> Result<OwnedMutexGuard<Known>, StoreError> {
        let Self { transaction, mut known, head, changed, root, latest, .. } = self;
        transaction.commit().await?;
        (known.head, known.root) = (head, root);
        latest.store(head.changes, Ordering::Release);
        for (key, entry) in changed {
            match entry {
                Some(entry) => known.rows.insert(key, entry),
                None => known.rows.remove(&key),
            };
        }
        Ok(known)
    }

    /// Checks every row that decides something. Gives their number.
    pub(super) async fn check_rows(&mut self) -> Result<u64, StoreError> {
        let keys: Vec<RowKey> = self.known.rows.keys().cloned().collect();
        for key in &keys {
            self.read(key).await?;
        }
        Ok(keys.len() as u64)
    }

    /// Every key, and the row that counts under it, as of this view.
    pub(super) fn live(&self) -> BTreeMap<RowKey, Entry> {
        let mut rows = self.known.rows.clone();
        for (key, entry) in &self.changed {
            match entry {
                Some(entry) => rows.insert(key.clone(), *entry),
                None => rows.remove(key),
            };
        }
        rows
    }

    pub(super) async fn put_line(&mut self, number: u64, row: Row) -> Result<(), StoreError> {
        Ok(self.transaction.put(Kind::AuditLine, &number.to_be_bytes(), row).await?)
    }

    pub(super) async fn lines(&mut self, from: u64, limit: usize) -> Result<Vec<(Vec<u8>, Row)>, StoreError> {
        Ok(self.transaction.from(Kind::AuditLine, &from.to_be_bytes(), limit).await?)
    }

    pub(super) async fn put_head(&mut self) -> Result<(), StoreError> {
        Ok(self.transaction.put(Kind::Head, &[], self.head.to_row(&self.root)).await?)
    }

    pub(super) fn known(&self, key: &RowKey) -> Option<Entry> {
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
