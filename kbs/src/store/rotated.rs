//! A new root key: every value is encrypted anew, and every row, change and line bound anew, in one transaction.
//!
//! Keys of tenants are random and only wrapped by the root key, so that sealing keys, certificate roots and what hangs from them
//! stay what they are.
//! Trusts: both root keys. Believes no row that does not hold under the old one.
//! Never: leaves a moment in which neither key opens the store, makes a damaged row or line into a believed one.

use std::sync::Arc;

use super::{
    AuditEntry, AuditFault, BROKER, Position, StoreError,
    batch::Moves,
    checkpoint::Checkpoint,
    head::{Head, Live},
    known::Known,
    ledger::{Ledger, Store},
    record::RowKey,
    rows::{Intent, Kind, Row, Rows, RowsError, Transaction as _},
    secrets, tenant_keys,
};
use crate::keys::{KeyError, RootKey, RowKind};

impl Store {
    /// Binds everything to `new` in place of the root key so far, with a line in the trail that says so. Nobody else writes
    /// meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] names a row that does not hold: it is mended first. After any error the old key opens the
    /// store; or the new one, where the answer to the commit was lost and nothing can be read either.
    pub async fn rotate_root(&self, new: RootKey, now_unix: i64) -> Result<Position, StoreError> {
        let mut ledger = self.write_alone().await?;
        let (old, new, before) = (ledger.root.clone(), Arc::new(new), ledger.head);
        ledger.forget_changes(&new).await?;
        for key in ledger.live().into_keys() {
            ledger.root = old.clone();
            let tampered = |source| StoreError::Tampered { what: key.what(), source };
            let body = ledger.read(&key).await?.ok_or_else(|| tampered(KeyError::Missing))?;
            let body = rewrapped(&key, body, &old, &new).map_err(tampered)?;
            ledger.root = new.clone();
            ledger.write(key, Some(body)).await?;
            if ledger.transaction.writes.len() >= WRITES {
                ledger.transaction.hand_down().await?;
            }
        }
        ledger.root = new.clone();
        ledger.bind_lines(&old).await?;
        let entry = AuditEntry { event: "root.rotate", outcome: "done", peer: BROKER.into(), ..AuditEntry::default() };
        ledger.append_audit(&entry, now_unix).await?;
        let after = ledger.head;
        let Some((mut turn, _)) = ledger.into_batch()? else {
            return Err(RowsError::Failed("a view that reads cannot write".into()).into());
        };
        let batch = turn.take()?;
        let follower = &self.shared.follower;
        let done = async {
            // Both are kept before anything is committed: whichever key opens the rows finds its own checkpoint.
            follower.keep_both((&old, &before), (&new, &after)).await?;
            self.shared.make_last(batch, Moves::Nothing).await
        };
        if let Err(error) = done.await {
            match self.took(new).await {
                Ok(true) => {}
                Ok(false) => {
                    follower.keep(&old, &before).await?;
                    return Err(error);
                }
                Err(unread) => {
                    let hint = "restart the server: it takes the key that opens the database";
                    tracing::error!(error = %coffer_rim::chain(&unread), hint, "which root key counts is not known");
                    return Err(error);
                }
            }
        }
        // Until here nobody else wrote.
        drop(turn);
        Ok(Checkpoint::from(&after).position())
    }

    /// True if the rows are committed under this key, although nobody heard of it: then it is known from now on. The caller
    /// has the turn.
    async fn took(&self, new: Arc<RootKey>) -> Result<bool, StoreError> {
        let mut transaction = self.rows.begin(Intent::Read).await?;
        let head = match Head::read(&mut *transaction, &new).await {
            Err(StoreError::Audit(AuditFault::Head)) => return Ok(false),
            head => head?,
        };
        let nothing = Known { root: new, head: Head::default(), rows: Arc::default(), damaged: Vec::new() };
        self.shared.publish(nothing.caught_up(&mut *transaction, head, None).await?);
        Ok(true)
    }
}

/// True if this key opens the rows.
pub(crate) async fn opens(rows: &dyn Rows, root: &RootKey) -> Result<bool, StoreError> {
    let mut transaction = rows.begin(Intent::Read).await?;
    Ok(Head::read(&mut *transaction, root).await.is_ok())
}

impl Ledger {
    /// Begins the record of changes anew, and the sum of the rows under another key.
    async fn forget_changes(&mut self, new: &RootKey) -> Result<(), StoreError> {
        loop {
            let entries = self.transaction.from(Kind::StateEntry, &[], BATCH).await?;
            if entries.is_empty() {
                break;
            }
            for (bytes, _) in entries {
                self.transaction.remove(Kind::StateEntry, &bytes).await?;
            }
            self.transaction.hand_down().await?;
        }
        (self.head.base, self.head.state_hash) = (self.head.changes, [0; 32]);
        self.head.live = Live::of(new, self.live().iter());
        Ok(())
    }

    /// Gives every line that held under the old key its MAC under the new one. One that did not goes on being named.
    async fn bind_lines(&mut self, old: &RootKey) -> Result<(), StoreError> {
        let mut from = 1;
        loop {
            let batch = self.lines(from, BATCH).await?;
            let Some((last, _)) = batch.last() else { return Ok(()) };
            from = last.as_slice().try_into().map_or(u64::MAX, u64::from_be_bytes).saturating_add(1);
            for (key, Row { body, mac }) in batch {
                if old.check_mac(RowKind::AuditLine, &[&key, &body], &mac).is_ok() {
                    let mac = self.root.mac(RowKind::AuditLine, &[&key, &body]).to_vec();
                    self.transaction.put(Kind::AuditLine, &key, Row { body, mac }).await?;
                }
            }
            self.transaction.hand_down().await?;
            if from == u64::MAX {
                return Ok(());
            }
        }
    }
}

/// What a row holds, with what was encrypted under the old key encrypted under the new one. A kind that is added says here
/// whether it holds such a thing.
fn rewrapped(key: &RowKey, body: Vec<u8>, old: &RootKey, new: &RootKey) -> Result<Vec<u8>, KeyError> {
    match key.kind {
        Kind::SecretVersion => secrets::rewrapped(key, &body, old, new),
        Kind::TenantKey => tenant_keys::rewrapped(key, &body, old, new),
        Kind::SecretHead
        | Kind::Reference
        | Kind::Signer
        | Kind::ManifestKey
        | Kind::Manifest
        | Kind::ManifestWorkload
        | Kind::CrlNumber
        | Kind::Crl
        | Kind::Restored
        | Kind::SealingContext
        | Kind::Generation
        | Kind::CertificateProfile
        | Kind::Policy
        | Kind::Admin
        | Kind::Tenant
        | Kind::Revocation
        | Kind::AuditArchive
        | Kind::Head
        | Kind::AuditLine
        | Kind::DecisionInput
        | Kind::StateEntry => Ok(body),
    }
}

/// Lines read at once.
const BATCH: usize = 1000;
/// Rows that lie in memory before they are handed down: values are among them.
const WRITES: usize = 200;
