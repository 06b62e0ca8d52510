//! Mending a state folder while no server runs: repair, and accepting an older database by name.

use std::{path::Path, sync::Arc};

use crate::{
    clock::Clock,
    state::{DATABASE, StateError, checkpoint_path, lock, open_rows, root_key, settle_root_key, witness},
    store::{
        Accepted, AuditFault, CheckpointError, FileCheckpoint, Forget, StateFault, StateSummary, Store, StoreError,
        Upgrade,
    },
};

/// What [`repair`] would do.
///
/// # Errors
/// [`StateError`].
pub async fn repair_plan(folder: &Path) -> Result<StateSummary, StateError> {
    let path = folder.join(DATABASE);
    let store = Store::open_file(&path, root_key(folder).await?, Upgrade::Forbidden, watched(folder)).await?;
    Ok(store.verify_state().await?)
}

/// Mends what can be mended. An end mark that is lost comes back from the checkpoint.
///
/// # Errors
/// [`StateError`]; then nothing has changed.
pub async fn repair(folder: &Path, forget: Forget) -> Result<StateSummary, StateError> {
    let _lock = lock(folder)?;
    settle_root_key(folder).await?;
    let (path, now) = (folder.join(DATABASE), Clock::system().now());
    let store = match Store::open_file(&path, root_key(folder).await?, Upgrade::Forbidden, watched(folder)).await {
        // An end mark that is gone, edited or an older one: the checkpoint has it, if nothing else was set back.
        Err(
            error @ (StoreError::Audit(AuditFault::Head)
            | StoreError::State(StateFault::Beyond { .. })
            | StoreError::Checkpoint(CheckpointError::Behind { .. })),
        ) => {
            let keeper = Arc::new(FileCheckpoint::new(checkpoint_path(folder)));
            let rebuilt = Store::rebuild_head(open_rows(folder).await?, root_key(folder).await?, keeper, now).await;
            rebuilt.map_err(|_| error)?
        }
        store => store?,
    };
    Ok(store.repair(forget, now).await?)
}

/// Accepts the database of a folder as it is, whatever its checkpoint has seen: a new epoch begins.
///
/// # Errors
/// [`StateError`]; then nothing has changed.
pub async fn accept_rollback(folder: &Path) -> Result<Accepted, StateError> {
    let _lock = lock(folder)?;
    settle_root_key(folder).await?;
    let keeper = Arc::new(FileCheckpoint::new(checkpoint_path(folder)));
    let accepted =
        Store::accept_rollback(open_rows(folder).await?, root_key(folder).await?, keeper, Clock::system().now());
    Ok(accepted.await?.1)
}

/// Said wherever somebody looks at a broker whose restore nobody has confirmed.
pub const UNCONFIRMED: &str = "look through secrets, references and revocations before guests do, then an owner says `coffer kbs admin \
                               confirm-restore`; generations stay closed until then";

fn watched(folder: &Path) -> crate::store::Witness {
    witness(&checkpoint_path(folder))
}
