//! A connection in one hand: the writer's, of which there is one, or a reader's. A reader sees the database as of its first
//! look, and neither waits for the writer nor keeps it waiting.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::{
    super::rows::RowsError,
    connection::{blocking, connect, patiently},
};

/// Connections that read, made when they are needed.
pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
}

/// Once it is let go, and work under way in it has ended, a transaction that is open is rolled back.
///
/// The hand lies where both this and the work find it: a caller that goes away in the middle of its work takes neither the
/// hand nor the transaction along, and whoever works next waits for the end of that work. It is empty once work has panicked.
pub struct Held(Arc<AsyncMutex<Option<Hand>>>);

enum Hand {
    Writer(OwnedMutexGuard<Connection>),
    /// The connection is there until the hand is dropped.
    Reader {
        connection: Option<Connection>,
        readers: Arc<Readers>,
        _place: OwnedSemaphorePermit,
    },
}

impl Readers {
    pub fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), places: Arc::new(Semaphore::new(READERS)) }
    }

    /// One of them.
    pub async fn take(self: &Arc<Self>) -> Result<Held, RowsError> {
        let closed = |error| RowsError::Failed(Box::new(error));
        let place = self.places.clone().acquire_owned().await.map_err(closed)?;
        let idle = self.idle().pop();
        let connection = if let Some(connection) = idle {
            connection
        } else {
            let path = self.path.clone();
            blocking(move || patiently(|| connect(&path))).await?
        };
        Ok(Held::over(Hand::Reader { connection: Some(connection), readers: self.clone(), _place: place }))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A list of connections is whole at each step.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hand {
    fn connection(&self) -> Option<&Connection> {
        match self {
            Self::Writer(connection) => Some(connection),
            Self::Reader { connection, .. } => connection.as_ref(),
        }
    }
}

impl Held {
    /// The writer's.
    pub fn writer(connection: OwnedMutexGuard<Connection>) -> Self {
        Self::over(Hand::Writer(connection))
    }

    fn over(hand: Hand) -> Self {
        Self(Arc::new(AsyncMutex::new(Some(hand))))
    }

    /// Runs `work` off the event loop, to its end also where the caller goes away meanwhile.
    pub async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, RowsError> + Send + 'static,
    ) -> Result<T, RowsError> {
        let mut place = self.0.clone().lock_owned().await;
        blocking(move || {
            // Work that panics drops the hand, so that nobody commits what it left half done.
            let hand = place.take().ok_or_else(gone)?;
            let result = work(hand.connection().ok_or_else(gone)?);
            *place = Some(hand);
            result
        })
        .await
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        let Some(connection) = self.connection() else { return };
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        if let Self::Reader { connection, readers, .. } = self
            && let Some(connection) = connection.take()
            && connection.is_autocommit()
        {
            readers.idle().push(connection);
        }
    }
}

fn gone() -> RowsError {
    RowsError::Failed("the connection was lost in an earlier call".into())
}

/// Views at one time; who comes later waits.
const READERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_more_is_done_after_work_that_panicked() {
        let connection = Arc::new(AsyncMutex::new(Connection::open_in_memory().unwrap()));
        let mut held = Held::writer(connection.clone().lock_owned().await);
        held.run(|connection| Ok(connection.execute_batch("BEGIN")?)).await.unwrap();
        assert!(held.run(|_| -> Result<(), RowsError> { panic!("within a transaction") }).await.is_err());
        assert!(held.run(|_| Ok(())).await.is_err());
        assert!(connection.lock().await.is_autocommit(), "it was rolled back, and is free");
    }
}
