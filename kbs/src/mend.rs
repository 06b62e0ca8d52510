//! Mending a state folder while no server runs: repair, accepting an older database by name, and one of an earlier format.

use std::{path::Path, sync::Arc};

use crate::{
    clock::Clock,
    state::{
        DATABASE, RootKeys, StateError, checkpoint_path, keeper, kept_its_owners, lock, open_rows, root_key,
        settle_root_key, watched,
    },
    store::{
        Accepted, AuditFault, CheckpointError, CheckpointKeeper, Forget, Position, StateFault, StateSummary, Store,
        StoreError, Traces, Upgrade,
    },
};

/// What [`repair`] would do.
///
/// # Errors
/// [`StateError`].
pub async fn repair_plan(folder: &Path) -> Result<StateSummary, StateError> {
    let path = folder.join(DATABASE);
    match Store::open_file(&path, root_key(folder).await?, Upgrade::Refused, watched(folder)?).await {
        Err(error) if is_of_a_lost_end_mark(&error) => {
            let keeper = keeper(folder, &checkpoint_path(folder))?;
            let plan = Store::rebuild_plan(open_rows(folder).await?, root_key(folder).await?, keeper).await;
            Ok(plan.map_err(|_| error)?)
        }
        store => Ok(store?.verify_state().await?),
    }
}

/// An end mark that is gone, edited or an older one: the checkpoint has it, if nothing else was set back.
const fn is_of_a_lost_end_mark(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Audit(AuditFault::Head)
            | StoreError::State(StateFault::Beyond { .. })
            | StoreError::Checkpoint(CheckpointError::Behind { .. })
    )
}

/// Mends what can be mended. An end mark that is lost comes back from the checkpoint.
///
/// # Errors
/// [`StateError`]; then nothing has changed.
pub async fn repair(folder: &Path, forget: Forget) -> Result<StateSummary, StateError> {
    let _kept = kept_its_owners(folder);
    let _lock = lock(folder)?;
    let changed = settle_root_key(folder).await? == RootKeys::NewOne;
    let (path, now) = (folder.join(DATABASE), Clock::system().now());
    let store = match Store::open_file(&path, root_key(folder).await?, Upgrade::Refused, watched(folder)?).await {
        Err(error) if is_of_a_lost_end_mark(&error) => {
            let keeper = keeper(folder, &checkpoint_path(folder))?;
            let rebuilt = Store::rebuild_head(open_rows(folder).await?, root_key(folder).await?, keeper, now).await;
            rebuilt.map_err(|_| error)?
        }
        store => store?,
    };
    let summary = store.repair(forget, now).await?;
    store.leave_no_traces(if changed { Traces::Everywhere } else { Traces::Log }).await?;
    Ok(summary)
}

/// Accepts the database of a folder as it is, whatever its checkpoint has seen: a new epoch begins.
///
/// # Errors
/// [`StateError`]; then nothing has changed.
pub async fn accept_rollback(folder: &Path) -> Result<Accepted, StateError> {
    let _kept = kept_its_owners(folder);
    let _lock = lock(folder)?;
    settle_root_key(folder).await?;
    let keeper = keeper(folder, &checkpoint_path(folder))?;
    let accepted =
        Store::accept_rollback(open_rows(folder).await?, root_key(folder).await?, keeper, Clock::system().now());
    Ok(accepted.await?.1)
}

/// Whether the checkpoint that the configuration of a folder names could be written now.
///
/// # Errors
/// [`StateError`].
pub(crate) async fn checkpoint_is_ready(folder: &Path) -> Result<(), StateError> {
    let kept: Arc<dyn CheckpointKeeper> = keeper(folder, &checkpoint_path(folder))?;
    Ok(kept.ready().await.map_err(crate::store::StoreError::from)?)
}

/// Brings the database of a folder to this version's format, on the word of whoever asks that it is the newest there is; a checkpoint that
/// lies there must fit all the same. Gives where it ends then. One that has this format is refused as it would be served.
///
/// # Errors
/// [`StateError`]; then nothing has changed.
pub async fn upgrade(folder: &Path) -> Result<Position, StateError> {
    let _kept = kept_its_owners(folder);
    let _lock = lock(folder)?;
    settle_root_key(folder).await?;
    let (path, root) = (folder.join(DATABASE), root_key(folder).await?);
    let store = Store::open_file(&path, root, Upgrade::Named, watched(folder)?).await?;
    // The tables of then held the same values.
    store.leave_no_traces(Traces::Everywhere).await?;
    Ok(store.position().await?)
}

/// Said wherever somebody looks at a broker whose restore nobody has confirmed.
pub const UNCONFIRMED: &str = "look through secrets, references and revocations before guests do, then an owner says `coffer kbs admin \
                               confirm-restore`; generations stay closed until then";
