//! The batch: what several ledgers made, committed together, so that they share one commit and one move of the checkpoint.
//!
//! One ledger that writes is at work at a time. One that is done leaves its rows here and waits; the first of a batch sets
//! off its commit, which takes its place in the queue behind everybody who waits for the ledger at that moment. So whoever
//! is alone is committed at once, there is no timer, and nobody is passed over. What a ledger makes lies beside the batch
//! until it is done: one that gives up takes nothing of the others with it.
//! Trusts: the ledger. Never: tells a member that its part lasts before all of it does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{OwnedMutexGuard, oneshot};

use super::{
    StoreError, apart,
    checkpoint::Follower,
    head::{Entry, Head},
    known::Known,
    record::RowKey,
    rows::{Kind, Row, RowsError, Traces, Transaction, Written},
};
use crate::keys::RootKey;

/// What all views of one store share.
pub(super) struct Shared {
    /// As of the last commit.
    known: Mutex<Known>,
    /// The last change that this process has seen.
    pub(super) latest: AtomicU64,
    pub(super) follower: Follower,
    /// The batch that is open. Whoever holds this writes.
    writer: Arc<tokio::sync::Mutex<Option<Batch>>>,
    /// What is gone and still lies in the files.
    pub(super) owed: Mutex<Option<Traces>>,
}

/// What is to be committed together.
pub(super) struct Batch {
    pub(super) transaction: Box<dyn Transaction>,
    pub(super) head: Head,
    /// The key that the head is signed with, and that is known from the commit on.
    root: Arc<RootKey>,
    pub(super) changed: BTreeMap<RowKey, Option<Entry>>,
    pub(super) writes: Writes,
    members: Vec<oneshot::Sender<Result<(), StoreError>>>,
}

/// Rows that are written, and do not lie in the store yet.
#[derive(Default)]
pub(super) struct Writes(BTreeMap<(Kind, Vec<u8>), Option<Row>>);

/// The hand of whoever writes. Let go, a batch that nobody is a member of is given up.
pub(super) struct Turn(OwnedMutexGuard<Option<Batch>>);

/// Somebody whose part is in a batch, and who has not been told yet whether it lasts.
pub(super) struct Member(Option<oneshot::Receiver<Result<(), StoreError>>>);

/// Whether a commit moves the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Moves {
    Checkpoint,
    /// The caller does.
    Nothing,
}

impl Shared {
    pub(super) fn new(known: Known, follower: Follower) -> Self {
        Self {
            known: Mutex::new(known),
            latest: AtomicU64::default(),
            follower,
            writer: Arc::default(),
            owed: Mutex::default(),
        }
    }

    /// What is known as of the last commit.
    pub(super) fn known(&self) -> Known {
        self.lock().clone()
    }

    /// From now on this is known. Only whoever has the turn, or opens the store, says so.
    pub(super) fn publish(&self, known: Known) {
        self.latest.store(known.head.changes, Ordering::Release);
        *self.lock() = known;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every critical section leaves a whole value.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn turn(&self) -> Turn {
        Turn(self.writer.clone().lock_owned().await)
    }

    /// Commits the open batch on a thread of its own, so that a caller that goes away changes nothing, and that nothing comes
    /// between the commit and everybody's seeing it. It is still the caller's turn after that.
    pub(super) async fn finish(self: &Arc<Self>, turn: Turn) -> Result<Turn, StoreError> {
        if apart::is_here() {
            return Ok(self.finish_here(turn).await);
        }
        let shared = self.clone();
        let finish = move || apart::drive(shared.finish_here(turn));
        tokio::task::spawn_blocking(finish).await.map_err(StoreError::interrupted)
    }

    async fn finish_here(&self, mut turn: Turn) -> Turn {
        let Some(mut batch) = turn.0.take() else { return turn };
        let members = std::mem::take(&mut batch.members);
        let done = self.make_last(batch, Moves::Checkpoint).await;
        // Not before everybody can see it.
        for member in members {
            let _ = member.send(match &done {
                Ok(()) => Ok(()),
                Err(error) => Err(told(error)),
            });
        }
        turn
    }

    /// Commits a batch. The caller has the turn, so that the checkpoint moves in the order of the commits.
    pub(super) async fn make_last(&self, batch: Batch, moves: Moves) -> Result<(), StoreError> {
        let Batch { transaction, head, root, changed, mut writes, .. } = batch;
        if moves == Moves::Checkpoint {
            self.follower.ready().await?;
        }
        let mut known = self.known();
        writes.put(Kind::Head, &[], head.to_row(&root));
        transaction.commit_with(writes.into_rows()).await?;
        let decides = head.changes != known.head.changes || head.epoch != known.head.epoch;
        let moved = if moves == Moves::Checkpoint { self.follower.moved(&root, &head, decides).await } else { Ok(()) };
        // Also where the checkpoint did not move: it happened.
        {
            let mut current = self.lock();
            if head.base != known.head.base {
                // The record of changes was written anew.
                known.damaged.clear();
            }
            (known.root, known.head) = (root, head);
            // The one that is shared goes first: what nobody looks at any more is changed in place.
            *current = known;
            for (key, entry) in changed {
                current.set(key, entry);
            }
        }
        self.latest.store(head.changes, Ordering::Release);
        moved.map_err(StoreError::Unwitnessed)
    }
}

impl Batch {
    pub(super) fn new(transaction: Box<dyn Transaction>, head: Head, root: Arc<RootKey>) -> Self {
        Self { transaction, head, root, changed: BTreeMap::new(), writes: Writes::default(), members: Vec::new() }
    }

    /// As many as are committed together.
    pub(super) fn is_full(&self) -> bool {
        self.members.len() >= MEMBERS
    }

    /// Takes what a ledger made.
    pub(super) fn take(
        &mut self,
        root: Arc<RootKey>,
        head: Head,
        changed: BTreeMap<RowKey, Option<Entry>>,
        writes: Writes,
    ) {
        (self.root, self.head) = (root, head);
        self.changed.extend(changed);
        self.writes.0.extend(writes.0);
    }
}

impl Turn {
    pub(super) fn begin(&mut self, batch: Batch) {
        *self.0 = Some(batch);
    }

    pub(super) fn batch(&self) -> Option<&Batch> {
        self.0.as_ref()
    }

    pub(super) fn batch_mut(&mut self) -> Result<&mut Batch, RowsError> {
        self.0.as_mut().ok_or_else(|| RowsError::Failed("there is no transaction".into()))
    }

    /// The batch, if only the caller's part is in it.
    pub(super) fn take(&mut self) -> Result<Batch, RowsError> {
        if self.has_members() {
            return Err(RowsError::Failed("others wait for this transaction".into()));
        }
        self.0.take().ok_or_else(|| RowsError::Failed("there is no transaction".into()))
    }

    /// True if somebody waits for the batch to be committed.
    pub(super) fn has_members(&self) -> bool {
        self.batch().is_some_and(|batch| !batch.members.is_empty())
    }

    /// Waits with the members of the batch.
    pub(super) async fn wait(self, shared: &Arc<Shared>) -> Result<(), StoreError> {
        self.join(shared)?.told().await
    }

    /// Becomes a member of the batch. The first of them has it committed.
    pub(super) fn join(mut self, shared: &Arc<Shared>) -> Result<Member, StoreError> {
        let (member, told) = oneshot::channel();
        let batch = self.batch_mut()?;
        batch.members.push(member);
        if batch.members.len() == 1 {
            let shared = shared.clone();
            let finish = async move {
                let turn = shared.turn().await;
                // Its members have been told.
                let _ = shared.finish(turn).await;
            };
            if apart::is_here() {
                // Straight to the thread that commits.
                tokio::task::spawn_blocking(move || apart::drive(finish));
            } else {
                tokio::spawn(finish);
            }
        }
        Ok(Member(Some(told)))
    }
}

impl Member {
    /// Of nothing: nothing was written.
    pub(super) fn of_nothing() -> Self {
        Self(None)
    }

    /// Waits until everybody can see what was written, or nobody will.
    pub(super) async fn told(self) -> Result<(), StoreError> {
        let Some(told) = self.0 else { return Ok(()) };
        told.await.unwrap_or_else(|_| Err(RowsError::Failed("the commit was interrupted".into()).into()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.has_members() {
            *self.0 = None;
        }
    }
}

impl Writes {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn put(&mut self, kind: Kind, key: &[u8], row: Row) {
        self.0.insert((kind, key.to_vec()), Some(row));
    }

    pub(super) fn remove(&mut self, kind: Kind, key: &[u8]) {
        self.0.insert((kind, key.to_vec()), None);
    }

    /// What is written under a key; nothing, if nothing is.
    pub(super) fn get(&self, kind: Kind, key: &[u8]) -> Option<&Option<Row>> {
        self.0.get(&(kind, key.to_vec()))
    }

    /// What is written under keys of a kind that are `from` or higher.
    pub(super) fn from(&self, kind: Kind, from: &[u8]) -> impl Iterator<Item = (&[u8], Option<&Row>)> {
        let written = self.0.range((kind, from.to_vec())..).take_while(move |((found, _), _)| *found == kind);
        written.map(|((_, key), row)| (key.as_slice(), row.as_ref()))
    }

    pub(super) fn into_rows(self) -> Vec<Written> {
        self.0.into_iter().map(|((kind, key), row)| (kind, key, row)).collect()
    }
}

/// The same failure for each member.
fn told(error: &StoreError) -> StoreError {
    match error {
        StoreError::Rows(RowsError::Full) => RowsError::Full.into(),
        StoreError::Checkpoint(error) => error.again().into(),
        StoreError::Unwitnessed(error) => StoreError::Unwitnessed(error.again()),
        StoreError::Rows(RowsError::Beneath { path, how }) => RowsError::Beneath { path: path.clone(), how }.into(),
        StoreError::Rows(RowsError::Failed(source)) => RowsError::Failed(coffer_rim::chain(&**source).into()).into(),
        _ => RowsError::Failed(coffer_rim::chain(error).into()).into(),
    }
}

/// Whose parts are committed together, at most: what they wrote lies in memory meanwhile.
const MEMBERS: usize = 64;
