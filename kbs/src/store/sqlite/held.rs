//! A connection in one hand: the writer's, of which there is one, or a reader's. A reader sees the database as of its first
//! look, and neither waits for the writer nor keeps it waiting.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::{RowsError, blocking, connect, patiently};

/// Connections that read, made when they are needed.
pub struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    places: Arc<Semaphore>,
}

/// Whoever lets it go with a transaction open has rolled it back.
pub struct Held(Option<Hand>);

enum Hand {
    Writer(OwnedMutexGuard<Connection>),
    Reader { connection: Connection, readers: Arc<Readers>, _place: OwnedSemaphorePermit },
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
        Ok(Held(Some(Hand::Reader { connection, readers: self.clone(), _place: place })))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        // A list of connections is whole at each step.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hand {
    fn connection(&self) -> &Connection {
        match self {
            Self::Writer(connection) => connection,
            Self::Reader { connection, .. } => connection,
        }
    }
}

impl Held {
    /// The writer's.
    pub fn writer(connection: OwnedMutexGuard<Connection>) -> Self {
        Self(Some(Hand::Writer(connection)))
    }

    /// Runs `work` off the event loop. If the caller goes away meanwhile, the transaction is rolled back there.
    pub async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, RowsError> + Send + 'static,
    ) -> Result<T, RowsError> {
        let held = Self(self.0.take());
        let (held, result) = blocking(move || {
            let result = match &held.0 {
                Some(hand) => work(hand.connection()),
                None => Err(gone()),
            };
            Ok((held, result))
        })
        .await?;
        *self = held;
        result
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(hand) = self.0.take() else { return };
        let connection = hand.connection();
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
        if let Hand::Reader { connection, readers, .. } = hand
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
