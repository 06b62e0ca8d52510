//! What another keeper held at one moment: a database that was copied after it must lead through that. Keeps nothing.

use std::io;

use super::{CheckpointError, CheckpointKeeper};

/// Of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotedCheckpoint {
    kept: Option<Vec<Vec<u8>>>,
    place: String,
}

impl NotedCheckpoint {
    /// What a keeper holds now.
    ///
    /// # Errors
    /// As [`CheckpointKeeper::kept`].
    pub async fn of(keeper: &dyn CheckpointKeeper) -> Result<Self, CheckpointError> {
        Ok(Self { kept: keeper.kept().await?, place: keeper.place() })
    }

    fn is_not_written(&self) -> CheckpointError {
        CheckpointError::File { path: self.place.clone().into(), source: io::ErrorKind::ReadOnlyFilesystem.into() }
    }
}

#[tonic::async_trait]
impl CheckpointKeeper for NotedCheckpoint {
    async fn kept(&self) -> Result<Option<Vec<Vec<u8>>>, CheckpointError> {
        Ok(self.kept.clone())
    }

    async fn begin(&self, _: &[u8], _: bool) -> Result<(), CheckpointError> {
        Err(self.is_not_written())
    }

    async fn keep(&self, _: &[u8]) -> Result<(), CheckpointError> {
        Err(self.is_not_written())
    }

    fn place(&self) -> String {
        self.place.clone()
    }
}
