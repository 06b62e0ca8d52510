//! Rows in memory, for tests: the same behaviour as a database, gone with the process.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::rows::{Intent, Kind, Row, Rows, RowsError, Transaction};

type Table = BTreeMap<(Kind, Vec<u8>), Row>;

/// Rows in memory. Clones share them, as two connections share a database.
#[derive(Clone, Default)]
pub struct MemoryRows(Arc<Mutex<Table>>);

struct MemoryTransaction {
    committed: OwnedMutexGuard<Table>,
    now: Table,
    intent: Intent,
}

#[tonic::async_trait]
impl Rows for MemoryRows {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        let committed = self.0.clone().lock_owned().await;
        let now = committed.clone();
        Ok(Box::new(MemoryTransaction { committed, now, intent }))
    }
}

impl MemoryTransaction {
    fn writes(&self) -> Result<(), RowsError> {
        match self.intent {
            Intent::Write => Ok(()),
            Intent::Read => Err(RowsError::Failed("a reading transaction cannot write".into())),
        }
    }
}

#[tonic::async_trait]
impl Transaction for MemoryTransaction {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        Ok(self.now.get(&(kind, key.to_vec())).cloned())
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.writes()?;
        self.now.insert((kind, key.to_vec()), row);
        Ok(())
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.writes()?;
        self.now.remove(&(kind, key.to_vec()));
        Ok(())
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        let rows = self.now.range((kind, from.to_vec())..).take_while(|((found, _), _)| *found == kind).take(limit);
        Ok(rows.map(|((_, key), row)| (key.clone(), row.clone())).collect())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), RowsError> {
        *self.committed = std::mem::take(&mut self.now);
        Ok(())
    }
}
