//! A checkpoint in memory, for tests: gone with the process, and as full as a test wants it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::{CheckpointError, CheckpointKeeper};

/// In memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryCheckpoint {
    kept: Arc<Mutex<Option<Vec<u8>>>>,
    full: Arc<AtomicBool>,
    writes: Arc<AtomicUsize>,
}

impl MemoryCheckpoint {
    /// From now on nothing can be written, or can again.
    pub fn full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// What it holds.
    pub fn get(&self) -> Option<Vec<u8>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts something else there, as somebody could who reaches it.
    pub fn set(&self, kept: Option<Vec<u8>>) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    /// How often it was written.
    pub fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }

    fn write(&self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        if self.full.load(Ordering::Relaxed) {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(CheckpointError::File { path: "memory".into(), source });
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.set(Some(checkpoint.to_vec()));
        Ok(())
    }
}

#[tonic::async_trait]
impl CheckpointKeeper for MemoryCheckpoint {
    async fn kept(&self) -> Result<Option<Vec<Vec<u8>>>, CheckpointError> {
        Ok(self.get().map(|one| vec![one]))
    }

    async fn begin(&self, checkpoint: &[u8], replace: bool) -> Result<(), CheckpointError> {
        if !replace && self.get().is_some() {
            let source = std::io::ErrorKind::AlreadyExists.into();
            return Err(CheckpointError::File { path: "memory".into(), source });
        }
        self.write(checkpoint)
    }

    async fn keep(&self, checkpoint: &[u8]) -> Result<(), CheckpointError> {
        self.write(checkpoint)
    }

    fn place(&self) -> String {
        "in memory".into()
    }
}
