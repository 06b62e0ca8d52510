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
    sync::{Arc, atomic::Ordering},
};

use super::{
    StateFault, StoreError,
    batch::{Batch, Member, Moves, Shared, Turn},
    checkpoint::{Checkpoint, CheckpointError, Follower, Position, Witness},
    head::{Entry, Head},
    known::{Known, beyond, chained, check_row, entry_body, row_fields},
    record::{Record, RowKey},
    rows::{Intent, Kind, Row, Rows, RowsError, Transaction},
    view::View,
};
use crate::{
    keys::{KeyError, RootKey, RowKind},
    tenant::Tenant,
};

/// The open store. One writer at a time; who reads waits for nobody.
pub struct Store {
    pub(super) rows: Arc<dyn Rows>,
    pub(super) shared: Arc<Shared>,
}

/// One view. Everything done through it is committed together, by [`Ledger::commit`], or not at all.
///
/// A view that writes may stand on what others wrote before it and is not committed yet: it is committed with them or after
/// them, never without. A view that reads shows what was committed, and nothing else.
pub struct Ledger {
    pub(super) transaction: View,
    pub(super) root: Arc<RootKey>,
    /// As of the last commit.
    pub(super) known: Known,
    pub(super) head: Head,
    shared: Arc<Shared>,
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

/// What a view that writes may stand on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// Also what others wrote just now.
    WhatIsWritten,
    /// Lines that others wrote just now, but no row.
    RowsThatLast,
    /// What is committed, and nobody comes into its commit.
    WhatLastsAlone,
}

impl Store {
    /// Begins a store in rows that hold nothing yet, and its checkpoint.
    ///
    /// # Errors
    /// [`StoreError::Rows`] or [`StoreError::Checkpoint`].
    pub async fn create(rows: Arc<dyn Rows>, root: RootKey, witness: Witness) -> Result<Self, StoreError> {
        let store = Self::unread(rows, root, witness);
        let transaction = store.rows.begin(Intent::Write).await?;
        let ledger = store.over(transaction, Head::first()).await;
        let (root, head) = (ledger.root.clone(), ledger.head);
        ledger.commit_unwitnessed().await?;
        store.shared.follower.begin(&root, &head, false).await?;
        Ok(store)
    }

    /// Opens what an earlier [`Store::create`] began, and learns every key from the state log.
    ///
    /// # Errors
    /// [`StoreError::Audit`] or [`StoreError::State`] if it is not what this key wrote, [`StoreError::Checkpoint`] if it is
    /// older than what was seen of it, or [`StoreError::Rows`].
    pub async fn open(rows: Arc<dyn Rows>, root: RootKey, witness: Witness) -> Result<Self, StoreError> {
        let store = Self::unread(rows, root, witness);
        let nothing = store.shared.known();
        let mut before = None;
        let known = loop {
            // Asked for before the rows: a server that runs beside moves it only forwards.
            let checkpoint = store.checkpoint(&nothing.root).await?;
            let mut transaction = store.rows.begin(Intent::Read).await?;
            let head = Head::read(&mut *transaction, &nothing.root).await?;
            match opened(&nothing, &mut *transaction, head, checkpoint.as_ref()).await {
                // Its line may have been archived in between: then it stands elsewhere now.
                Err(StoreError::Checkpoint(CheckpointError::Beside { .. })) if before != checkpoint => {
                    before = checkpoint;
                }
                other => break other?,
            }
        };
        if let Some(first) = known.damaged.first() {
            tracing::error!(
                entry = first,
                entries = known.damaged.len(),
                "the record of changes is damaged; the rows are whole, and `coffer-kbs state repair` writes it anew"
            );
        }
        store.shared.publish(known);
        Ok(store)
    }

    /// The checkpoint; nothing where nobody keeps one.
    pub(super) async fn checkpoint(&self, root: &RootKey) -> Result<Option<Checkpoint>, StoreError> {
        let Witness::Kept(keeper) = self.shared.follower.witness() else { return Ok(None) };
        match Checkpoint::newest(&**keeper, root).await? {
            Some(checkpoint) => Ok(Some(checkpoint)),
            None => Err(CheckpointError::Missing { place: keeper.place() }.into()),
        }
    }

    /// One view of everything that is committed.
    ///
    /// # Errors
    /// As [`Store::open`]; also [`StateFault::SetBack`](super::StateFault::SetBack) if the rows are older than what this
    /// process has seen.
    pub async fn read(&self) -> Result<Ledger, StoreError> {
        let (transaction, row) = Head::begin(&*self.rows, Intent::Read).await?;
        let known = self.shared.known();
        // Under a new root key, perhaps, that is known in a moment.
        let head = Head::believed(row, &known.root).ok();
        if let Some(head) = head.filter(|head| *head == known.head) {
            return Ok(self.ledger(View::reading(transaction), known, head));
        }
        // Committed at this moment, or by another process: whoever writes is let finish.
        drop(transaction);
        let _turn = self.shared.turn().await;
        let (transaction, known) = self.caught_up(Intent::Read).await?;
        let head = known.head;
        Ok(self.ledger(View::reading(transaction), known, head))
    }

    /// A view that may write; there is one at a time. It may stand on what others wrote just now, so that nothing that is
    /// found through it is told to anybody before [`Ledger::commit`].
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn write(&self) -> Result<Ledger, StoreError> {
        self.begin(On::WhatIsWritten).await
    }

    /// The same on rows that are committed, so that what is found through it may be told at once.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn write_on_what_lasts(&self) -> Result<Ledger, StoreError> {
        self.begin(On::RowsThatLast).await
    }

    /// The same, in a commit of its own.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub(super) async fn write_alone(&self) -> Result<Ledger, StoreError> {
        self.begin(On::WhatLastsAlone).await
    }

    async fn begin(&self, on: On) -> Result<Ledger, StoreError> {
        let mut turn = self.shared.turn().await;
        let is_done = |batch: &Batch| match on {
            On::WhatIsWritten => batch.is_full(),
            On::RowsThatLast => batch.is_full() || !batch.changed.is_empty(),
            On::WhatLastsAlone => true,
        };
        if turn.batch().is_some_and(is_done) {
            turn = self.shared.finish(turn).await?;
        }
        let open = turn.batch().map(|batch| batch.head);
        let (known, head) = if let Some(head) = open {
            (self.shared.known(), head)
        } else {
            let (transaction, known) = self.caught_up(Intent::Write).await?;
            let head = known.head;
            turn.begin(Batch::new(transaction, head, known.root.clone()));
            (known, head)
        };
        Ok(self.ledger(View::writing(turn), known, head))
    }

    /// A transaction, and what is known as of its head. The caller has the turn.
    async fn caught_up(&self, intent: Intent) -> Result<(Box<dyn Transaction>, Known), StoreError> {
        let (mut transaction, row) = Head::begin(&*self.rows, intent).await?;
        let known = self.shared.known();
        let head = Head::believed(row, &known.root)?;
        if head == known.head {
            return Ok((transaction, known));
        }
        // Another process wrote, or a commit of ours happened whose answer was lost.
        let known = known.caught_up(&mut *transaction, head, None).await?;
        self.shared.publish(known.clone());
        Ok((transaction, known))
    }

    /// The last change that this process has seen: what was found out at this change still holds. Takes no lock.
    pub fn changes(&self) -> u64 {
        self.shared.latest.load(Ordering::Acquire)
    }

    /// Where the history ends.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn position(&self) -> Result<Position, StoreError> {
        Ok(Checkpoint::from(&self.read().await?.head).position())
    }

    /// Whether decisions are recorded: not while the checkpoint cannot be moved.
    pub fn is_witnessed(&self) -> bool {
        !self.shared.follower.has_failed()
    }

    /// That the rows are still where they were, whether or not anybody asks for one.
    ///
    /// # Errors
    /// [`StoreError::Rows`] names the file that is not.
    pub fn rows_are_there(&self) -> Result<(), StoreError> {
        Ok(self.rows.are_there()?)
    }

    /// That there is room for a decision about a guest, beyond what is kept for operators.
    ///
    /// # Errors
    /// [`StoreError::Rows`] says how much is left.
    pub fn leaves_reserve(&self) -> Result<(), StoreError> {
        Ok(self.rows.leave_reserve()?)
    }

    /// Writes what the checkpoint lags behind: before a server ends.
    ///
    /// # Errors
    /// [`StoreError::Checkpoint`].
    pub async fn settle(&self) -> Result<(), StoreError> {
        Ok(self.shared.follower.settle().await?)
    }

    /// A ledger that writes in a transaction that somebody else began, from this head on.
    pub(super) async fn over(&self, transaction: Box<dyn Transaction>, head: Head) -> Ledger {
        let mut turn = self.shared.turn().await;
        let known = self.shared.known();
        turn.begin(Batch::new(transaction, head, known.root.clone()));
        self.ledger(View::writing(turn), known, head)
    }

    /// Without a look at the rows.
    pub(super) fn unread(rows: Arc<dyn Rows>, root: RootKey, witness: Witness) -> Self {
        Self { rows, shared: Arc::new(Shared::new(Known::nothing(root), Follower::new(witness))) }
    }

    fn ledger(&self, transaction: View, known: Known, head: Head) -> Ledger {
        let seen = Seen { changes: head.changes, ..Seen::default() };
        let (root, shared) = (known.root.clone(), self.shared.clone());
        Ledger { transaction, root, known, head, shared, changed: BTreeMap::new(), seen }
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
pub(super) async fn line_is_there(
    transaction: &mut dyn Transaction,
    root: &RootKey,
    checkpoint: &Checkpoint,
) -> Result<bool, StoreError> {
    use super::{audit::previous_of, marker::chained};
    let Head { lines, line_hash: hash, .. } = checkpoint.0;
    let key = lines.to_be_bytes();
    let at = transaction.get(Kind::AuditLine, &key).await?;
    if lines == 0 || at.is_some_and(|row| chained(root, &key, &row) == hash) {
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

    /// The newest key of a kind whose rows are the broker's own, of those that mean something. Takes no list and notes nothing.
    pub(super) fn newest_global<T: Ord>(&self, kind: Kind, meaning: impl Fn(&RowKey) -> Option<T>) -> Option<T> {
        let first = RowKey::global(kind, &[]);
        let of_kind = |key: &&RowKey| key.is_beside(&first);
        let known = self.known.rows.range(first.clone()..).map(|(key, _)| key).take_while(of_kind);
        let written = self.changes_in_order().filter(|(key, entry)| entry.is_some() && key.is_beside(&first));
        known.chain(written.map(|(key, _)| key)).filter_map(meaning).max()
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

    /// Makes all of it last, here and in the checkpoint, and whatever others wrote that it stands on.
    ///
    /// # Errors
    /// [`StoreError::Rows`]: then nothing is known to be written, and nothing may leave. [`StoreError::Checkpoint`]: then
    /// nothing was written. [`StoreError::Unwitnessed`]: it was, and nothing may leave.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.join()?.told().await
    }

    /// Sets that off.
    pub(super) fn join(self) -> Result<Member, StoreError> {
        let shared = self.shared.clone();
        match self.into_batch()? {
            Some((turn, wrote)) if wrote || turn.has_members() => turn.join(&shared),
            _ => Ok(Member::of_nothing()),
        }
    }

    /// Waits until what others wrote, and this view shows, lasts or is undone. Nothing is written through this view.
    pub async fn others_are_done(self) {
        if let (Some(turn), _) = self.transaction.into_parts()
            && turn.has_members()
        {
            // They are told themselves whether it lasts.
            let _ = turn.wait(&self.shared).await;
        }
    }

    /// Makes all of it last, and moves no checkpoint: for a store that nobody else has.
    pub(super) async fn commit_unwitnessed(self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let Some((mut turn, _)) = self.into_batch()? else { return Ok(()) };
        let batch = turn.take()?;
        shared.make_last(batch, Moves::Nothing).await
    }

    /// Puts what was written into the batch. True if anything was; nothing for a view that reads.
    pub(super) fn into_batch(self) -> Result<Option<(Turn, bool)>, RowsError> {
        let Self { transaction, root, head, changed, .. } = self;
        let (turn, writes) = transaction.into_parts();
        let Some(mut turn) = turn else {
            let reads = || RowsError::Failed("a view that reads cannot write".into());
            return if writes.is_empty() { Ok(None) } else { Err(reads()) };
        };
        let batch = turn.batch_mut()?;
        let wrote = !writes.is_empty() || head != batch.head;
        batch.take(root, head, changed, writes);
        Ok(Some((turn, wrote)))
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
        let mut rows = BTreeMap::clone(&self.known.rows);
        for (key, entry) in self.changes_in_order() {
            match entry {
                Some(entry) => rows.insert(key.clone(), *entry),
                None => rows.remove(key),
            };
        }
        rows
    }

    /// What was changed and is not committed: by others, then through this view.
    fn changes_in_order(&self) -> impl Iterator<Item = (&RowKey, &Option<Entry>)> {
        self.transaction.batch().into_iter().flat_map(|batch| &batch.changed).chain(&self.changed)
    }

    pub(super) async fn put_line(&mut self, number: u64, row: Row) -> Result<(), StoreError> {
        Ok(self.transaction.put(Kind::AuditLine, &number.to_be_bytes(), row).await?)
    }

    pub(super) async fn lines(&mut self, from: u64, limit: usize) -> Result<Vec<(Vec<u8>, Row)>, StoreError> {
        Ok(self.transaction.from(Kind::AuditLine, &from.to_be_bytes(), limit).await?)
    }

    pub(super) fn known(&self, key: &RowKey) -> Option<Entry> {
        let changed = self.changed.get(key).or_else(|| self.transaction.batch()?.changed.get(key));
        changed.copied().unwrap_or_else(|| self.known.rows.get(key).copied())
    }

    fn listed(&self, first: &RowKey) -> Vec<RowKey> {
        let known = self.known.rows.range(first.clone()..).map(|(key, _)| key).take_while(|key| key.is_beside(first));
        let mut keys: std::collections::BTreeSet<RowKey> = known.cloned().collect();
        for (key, entry) in self.changes_in_order().filter(|(key, _)| *key >= first && key.is_beside(first)) {
            if entry.is_some() {
                keys.insert(key.clone());
            } else {
                keys.remove(key);
            }
        }
        keys.into_iter().collect()
    }
}
