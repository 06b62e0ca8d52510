//! Waits until a box does not run.

use std::time::Duration;

use super::{Engine, Fault, Hint, OpenError};
use crate::Class;

/// Why nobody can say how a box ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The installation does not open, or has no such box.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It ended, and with it went its record.
    #[error("box {0} has ended and was removed, and its exit code with it")]
    Removed(String),
}

impl Fault for WaitError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Removed(_) => Class::NotFound,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Open(error) => error.hint(),
            Self::Removed(_) => Some("wait for a box that is not made to go when it ends".into()),
        }
    }
}

const INTERVAL: Duration = Duration::from_millis(100);

impl Engine {
    /// Waits until a box does not run, and gives the status of its last run; of one that never ran, 0. One that is just being
    /// started, or is to be started again by its policy, is no box that does not run.
    ///
    /// # Errors
    /// [`WaitError`].
    pub async fn wait(&self, word: &str) -> Result<i32, WaitError> {
        let record = self.find(word)?;
        loop {
            self.mend()?;
            let now = match self.find(record.id.as_str()) {
                Err(error) if error.is_unknown() => return Err(WaitError::Removed(record.name)),
                now => now?,
            };
            if !self.is_busy(&now)? {
                return Ok(now.exit_code.unwrap_or(0));
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
