//! Accepting an older state by name: a new epoch, a line in the trail, and counters that stay closed until an owner confirms.
//!
//! What was done after the accepted state is forgotten, deletions and revocations too: no program can know whether that
//! matters, so a person says so, and the trail keeps it.

use std::sync::Arc;

use coffer_verifier::binding::length_prefixed;

use super::{
    AuditEntry, BROKER, Position, StoreError,
    checkpoint::{Checkpoint, CheckpointError, CheckpointKeeper, Witness},
    head::Head,
    known::beyond,
    ledger::{Ledger, Store},
    record::{Fields, Record, RowKey},
    rows::{Intent, Kind, Rows},
};
use crate::keys::RootKey;

/// The last time somebody accepted an older state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The epoch that began then.
    pub epoch: u64,
    /// When.
    pub at_unix: i64,
    /// When an owner confirmed it.
    pub confirmed_unix: Option<i64>,
}

/// What was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Where the accepted database ended.
    pub found: Position,
    /// What the checkpoint had seen; nothing where it was missing or not ours.
    pub seen: Option<Position>,
    /// The epoch from now on.
    pub epoch: u64,
}

impl Record for Restored {
    fn encode(&self) -> Vec<u8> {
        let confirmed = self.confirmed_unix.map(i64::to_be_bytes);
        length_prefixed(&[
            &self.epoch.to_be_bytes(),
            &self.at_unix.to_be_bytes(),
            confirmed.as_ref().map_or(&[], <[u8; 8]>::as_slice),
        ])
    }

    fn decode(_: &RowKey, body: &[u8]) -> Option<Self> {
        let mut fields = Fields(body);
        let (epoch, at_unix) = (fields.unsigned()?, fields.signed()?);
        let confirmed_unix = match fields.bytes()? {
            [] => None,
            time => Some(i64::from_be_bytes(time.try_into().ok()?)),
        };
        fields.end(Self { epoch, at_unix, confirmed_unix })
    }
}

impl Store {
    /// Accepts the rows as they are, whatever the checkpoint has seen, and begins an epoch with them. They must still be this
    /// key's.
    ///
    /// # Errors
    /// As [`Store::open`], but for [`StoreError::Checkpoint`] of a database behind, beside or without its checkpoint.
    pub async fn accept_rollback(
        rows: Arc<dyn Rows>,
        root: RootKey,
        keeper: Arc<dyn CheckpointKeeper>,
        now_unix: i64,
    ) -> Result<(Self, Accepted), StoreError> {
        let store = Self::unread(rows, root, Witness::Kept(keeper.clone()));
        let known = store.shared.known();
        let seen = match Checkpoint::newest(&*keeper, &known.root).await {
            Ok(seen) => seen.map(|seen| seen.position()),
            Err(CheckpointError::Foreign { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        // Once the rows have another epoch, the checkpoint they had is another history's.
        keeper.ready().await?;
        let mut transaction = store.rows.begin(Intent::Write).await?;
        let head = Head::read(&mut *transaction, &known.root).await?;
        store.shared.publish(known.caught_up(&mut *transaction, head, None).await?);
        // What lies behind an end mark that is accepted is no part of the history that goes on.
        loop {
            let behind = beyond(&mut *transaction, &known.root, &head).await?;
            for (kind, key, _) in &behind {
                transaction.remove(*kind, key).await?;
            }
            if behind.is_empty() {
                break;
            }
        }
        let found = Checkpoint::from(&head).position();
        let mut ledger = store.over(transaction, head).await;
        let epoch = found.epoch.max(seen.map_or(0, |seen| seen.epoch)) + 1;
        ledger.head.epoch = epoch;
        ledger.put_record(key(), &Restored { epoch, at_unix: now_unix, confirmed_unix: None }).await?;
        let seen_text =
            seen.map_or("no checkpoint that is believed".to_owned(), |seen| format!("the checkpoint saw {seen}"));
        let entry = AuditEntry {
            event: "state.restore",
            outcome: "accepted-rollback",
            peer: BROKER.into(),
            reasons: vec![format!("database ended with {found}, {seen_text}; epoch {epoch} begins")],
            ..AuditEntry::default()
        };
        ledger.append_audit(&entry, now_unix).await?;
        let (root, head) = (ledger.root.clone(), ledger.head);
        ledger.commit_unwitnessed().await?;
        store.shared.follower.begin(&root, &head, true).await?;
        Ok((store, Accepted { found, seen, epoch }))
    }
}

impl Ledger {
    /// The last time an older state was accepted. While nobody has confirmed it, no counter may be given out or moved: it may
    /// be one that was moved on since.
    ///
    /// # Errors
    /// As the store.
    pub async fn restored(&mut self) -> Result<Option<Restored>, StoreError> {
        self.record(&key()).await
    }

    /// An owner has looked at what was lost: counters go on. False if there was nothing to confirm.
    ///
    /// # Errors
    /// As the store.
    pub async fn confirm_restored(&mut self, now_unix: i64) -> Result<bool, StoreError> {
        match self.restored().await? {
            Some(restored) if restored.confirmed_unix.is_none() => {
                let confirmed = Restored { confirmed_unix: Some(now_unix), ..restored };
                self.put_record(key(), &confirmed).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

fn key() -> RowKey {
    RowKey::global(Kind::Restored, &[])
}
