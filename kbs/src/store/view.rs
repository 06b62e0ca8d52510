//! The rows as one ledger sees them: its own over those of the batch it stands in, over those that lie there.
//!
//! Never: changes a row below it. What a ledger wrote is gone with it, or goes into the batch.

use std::collections::BTreeMap;

use super::{
    batch::{Batch, Turn, Writes},
    rows::{Kind, Row, RowsError, Transaction},
};

/// Rows in one ledger's hand.
pub(super) struct View {
    base: Base,
    pub(super) writes: Writes,
}

enum Base {
    Reads(Box<dyn Transaction>),
    Writes(Turn),
}

impl View {
    pub(super) fn reading(transaction: Box<dyn Transaction>) -> Self {
        Self { base: Base::Reads(transaction), writes: Writes::default() }
    }

    pub(super) fn writing(turn: Turn) -> Self {
        Self { base: Base::Writes(turn), writes: Writes::default() }
    }

    /// The batch it stands in.
    pub(super) fn batch(&self) -> Option<&Batch> {
        match &self.base {
            Base::Reads(_) => None,
            Base::Writes(turn) => turn.batch(),
        }
    }

    /// The turn of a view that writes, and what it wrote.
    pub(super) fn into_parts(self) -> (Option<Turn>, Writes) {
        match self.base {
            Base::Reads(_) => (None, self.writes),
            Base::Writes(turn) => (Some(turn), self.writes),
        }
    }

    /// Hands what was written to the rows below, so that it does not lie in memory: for a view that is alone in its batch, which
    /// is given up with it.
    pub(super) async fn hand_down(&mut self) -> Result<(), RowsError> {
        match &mut self.base {
            Base::Writes(turn) if !turn.has_members() => {
                let writes = std::mem::take(&mut self.writes);
                turn.batch_mut()?.transaction.write(writes.into_rows()).await
            }
            _ => Err(RowsError::Failed("a view hands nothing down where others write or nobody does".into())),
        }
    }

    fn below(&mut self) -> Result<&mut dyn Transaction, RowsError> {
        match &mut self.base {
            Base::Reads(transaction) => Ok(&mut **transaction),
            Base::Writes(turn) => Ok(&mut *turn.batch_mut()?.transaction),
        }
    }
}

#[tonic::async_trait]
impl Transaction for View {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        let written = self.writes.get(kind, key);
        if let Some(row) = written.or_else(|| self.batch()?.writes.get(kind, key)) {
            return Ok(row.clone());
        }
        self.below()?.get(kind, key).await
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.writes.put(kind, key, row);
        Ok(())
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.writes.remove(kind, key);
        Ok(())
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        let mut written: BTreeMap<Vec<u8>, Option<Row>> = BTreeMap::new();
        {
            let batch = self.batch().into_iter().flat_map(|batch| batch.writes.from(kind, from));
            written.extend(batch.chain(self.writes.from(kind, from)).map(|(key, row)| (key.to_vec(), row.cloned())));
        }
        // As many more as may have been removed since.
        let below = self.below()?.from(kind, from, limit.saturating_add(written.len())).await?;
        if written.is_empty() {
            return Ok(below);
        }
        let mut rows: BTreeMap<Vec<u8>, Row> = below.into_iter().collect();
        for (key, row) in written {
            match row {
                Some(row) => rows.insert(key, row),
                None => rows.remove(&key),
            };
        }
        Ok(rows.into_iter().take(limit).collect())
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        Err(RowsError::Failed("a view is committed by its ledger".into()))
    }
}
