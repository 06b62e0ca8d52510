//! Rows in memory, for tests: the same behaviour as a database, gone with the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::rows::{Intent, Kind, Row, Rows, RowsError, Transaction};

type Table = BTreeMap<(Kind, Vec<u8>), Row>;

/// Rows in memory. Clones share them, as two connections share a database.
#[derive(Clone, Default)]
pub struct MemoryRows {
    committed: Arc<std::sync::Mutex<Arc<Table>>>,
    /// Held by the one writer.
    writer: Arc<Mutex<()>>,
}

struct MemoryTransaction {
    rows: MemoryRows,
    now: Arc<Table>,
    /// A transaction without one only reads.
    turn: Option<OwnedMutexGuard<()>>,
}

#[tonic::async_trait]
impl Rows for MemoryRows {
    async fn begin(&self, intent: Intent) -> Result<Box<dyn Transaction>, RowsError> {
        let turn = match intent {
            Intent::Read => None,
            Intent::Write => Some(self.writer.clone().lock_owned().await),
        };
        Ok(Box::new(MemoryTransaction { rows: self.clone(), now: self.committed().clone(), turn }))
    }
}

impl MemoryRows {
    fn committed(&self) -> MutexGuard<'_, Arc<Table>> {
        // One assignment: nothing is left half done.
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryTransaction {
    fn writes(&mut self) -> Result<&mut Table, RowsError> {
        match self.turn {
            Some(_) => Ok(Arc::make_mut(&mut self.now)),
            None => Err(RowsError::Failed("a reading transaction cannot write".into())),
        }
    }
}

#[tonic::async_trait]
impl Transaction for MemoryTransaction {
    async fn get(&mut self, kind: Kind, key: &[u8]) -> Result<Option<Row>, RowsError> {
        Ok(self.now.get(&(kind, key.to_vec())).cloned())
    }

    async fn put(&mut self, kind: Kind, key: &[u8], row: Row) -> Result<(), RowsError> {
        self.writes()?.insert((kind, key.to_vec()), row);
        Ok(())
    }

    async fn remove(&mut self, kind: Kind, key: &[u8]) -> Result<(), RowsError> {
        self.writes()?.remove(&(kind, key.to_vec()));
        Ok(())
    }

    async fn from(&mut self, kind: Kind, from: &[u8], limit: usize) -> Result<Vec<(Vec<u8>, Row)>, RowsError> {
        let rows = self.now.range((kind, from.to_vec())..).take_while(|((found, _), _)| *found == kind).take(limit);
        Ok(rows.map(|((_, key), row)| (key.clone(), row.clone())).collect())
    }

    async fn commit(self: Box<Self>) -> Result<(), RowsError> {
        if self.turn.is_some() {
            *self.rows.committed() = self.now;
        }
        Ok(())
    }
}
