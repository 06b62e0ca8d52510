//! Changing the root key of a state folder, so that at every moment one of two keys opens it.
//!
//! The new key lies beside the old one, as `root.key.next`, from before the first change until the last: whoever opens the folder
//! takes the one that opens the database (see `state.rs`), and a server that starts ends what was begun.
//! Never: names the new key before the database is committed under it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    audit_log::AuditLog,
    clock::Clock,
    custody::{Custody as _, FileCustody},
    state::{
        DATABASE, NEXT_ROOT_KEY, StateError, adopt_root_key, kept_its_owners, lock, root_key, settle_root_key, watched,
    },
    store::{Position, Store, StoreError, Traces, Upgrade},
};

/// Changes the root key while a server runs.
pub struct Rotation {
    folder: PathBuf,
    store: Arc<Store>,
    log: AuditLog,
}

impl Rotation {
    /// Of the store that a server has open.
    pub(crate) fn new(folder: &Path, store: Arc<Store>, log: AuditLog) -> Self {
        Self { folder: folder.into(), store, log }
    }

    /// Changes it. Who asks meanwhile waits.
    ///
    /// # Errors
    /// As [`rotate_root`]; [`StoreError::Traces`]: it is changed, and values may still lie there as they were under the old key.
    pub async fn apply(&self) -> Result<Position, StateError> {
        let (ends, traces) = rotate(&self.folder, &self.store).await?;
        // Its line is the last of the change. Whatever comes of reading it, the change is made.
        match self.store.read().await {
            Ok(mut view) => match view.audit_lines(ends.lines, 1).await {
                Ok(lines) => lines.iter().for_each(|line| self.log.write(line)),
                Err(error) => tracing::warn!(%error, "the line of the change is in the database alone"),
            },
            Err(error) => tracing::warn!(%error, "the line of the change is in the database alone"),
        }
        traces?;
        Ok(ends)
    }
}

/// Changes the root key of a folder that no server has open. Gives where the database ends under the new one.
///
/// # Errors
/// [`StateError`]; then the old key goes on opening it, unless the answer to the commit was lost; or [`StoreError::Traces`].
pub async fn rotate_root(folder: &Path) -> Result<Position, StateError> {
    let _kept = kept_its_owners(folder);
    let _lock = lock(folder)?;
    settle_root_key(folder).await?;
    let (path, root) = (folder.join(DATABASE), root_key(folder).await?);
    let store = Store::open_file(&path, root, Upgrade::Refused, watched(folder)?).await?;
    let (ends, traces) = rotate(folder, &store).await?;
    traces?;
    Ok(ends)
}

/// Changes it. Beside where the database ends then: whether anything is left that the old key opens.
async fn rotate(folder: &Path, store: &Store) -> Result<(Position, Result<(), StoreError>), StateError> {
    settle_root_key(folder).await?;
    let new = FileCustody::new(folder.join(NEXT_ROOT_KEY)).create().await?;
    let ends = store.rotate_root(new, Clock::system().now()).await?;
    // Before the key has its name: whoever finds it without one does this, too.
    let traces = store.leave_no_traces(Traces::Everywhere).await;
    adopt_root_key(folder)?;
    Ok((ends, traces))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{State, init, state::ROOT_KEY};

    #[tokio::test]
    async fn a_key_of_a_change_that_did_not_happen_is_kept_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        init(&state, "127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let mut cut_off = Vec::new();
        for _ in 0..3 {
            let next = state.join(NEXT_ROOT_KEY);
            FileCustody::new(&next).create().await.unwrap();
            cut_off.push(read(&next));
            let old = read(&state.join(ROOT_KEY));
            drop(State::open(&state).await.unwrap());
            assert_eq!(read(&state.join(ROOT_KEY)), old);
            assert!(!next.exists());
        }
        let names = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().path());
        let unused = names.filter(|path| path.display().to_string().contains("/root.key.unused-"));
        let mut kept: Vec<_> = unused.map(|path| read(&path)).collect();
        kept.sort();
        cut_off.sort();
        assert_eq!(kept, cut_off);
    }
}
