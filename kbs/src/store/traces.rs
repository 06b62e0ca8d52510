//! Nothing of what is gone stays in the files: asked for once a value was destroyed, or the root key changed.
//!
//! Never: calls something done that can still be read there.

use std::{
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use super::{
    StoreError,
    batch::Shared,
    ledger::Store,
    rows::{Rows, RowsError, Traces},
};

impl Store {
    /// Overwrites what the files hold of rows that are gone. Where somebody reads them just then, and goes on reading, it is tried
    /// again until it is done. Nobody calls this with a view that writes in hand.
    ///
    /// # Errors
    /// [`StoreError::Traces`]: the rows are gone, and not yet their bytes.
    pub async fn leave_no_traces(&self, traces: Traces) -> Result<(), StoreError> {
        let Err(error) = self.rows.overwrite(traces).await else { return Ok(()) };
        if self.shared.owe(what_is_left(&error, traces)) {
            tokio::spawn(try_again(Arc::downgrade(&self.rows), self.shared.clone()));
        }
        Err(StoreError::Traces(error))
    }
}

impl Shared {
    /// True if somebody has to be found who does it.
    fn owe(&self, traces: Traces) -> bool {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let nobody = owed.is_none();
        *owed = Some(owed.map_or(traces, |before| before.max(traces)));
        nobody
    }

    fn take_owed(&self) -> Option<Traces> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Rows that were written anew lie in the log alone.
fn what_is_left(error: &RowsError, traces: Traces) -> Traces {
    if matches!(error, RowsError::Held) { Traces::Log } else { traces }
}

async fn try_again(rows: Weak<dyn Rows>, shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(PAUSE).await;
        let Some(rows) = rows.upgrade() else { return };
        let Some(traces) = shared.take_owed() else { return };
        match rows.overwrite(traces).await {
            Ok(()) => {
                tracing::info!("what was gone, and still lay in the database's files, is overwritten");
                return;
            }
            Err(error) => {
                tracing::error!(error = %coffer_rim::chain(&error), "what is gone still lies in the database's files");
                if !shared.owe(what_is_left(&error, traces)) {
                    return;
                }
            }
        }
    }
}

const PAUSE: Duration = Duration::from_secs(5);
