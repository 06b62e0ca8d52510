//! What is left of a box whose creation or removal was killed: a folder that no record names.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::prune::disk_bytes;
use super::{Engine, OpenError, RemoveError};
use crate::home::Home;
use crate::id::BoxId;
use crate::lock::BoxLock;
use crate::removal::remove_folder;
use crate::state::StateError;

/// While it is held no folder counts as left over: a box has one before it has a record. The kernel lets go of it with its process.
#[derive(Debug)]
pub(super) struct Making(#[allow(dead_code, reason = "the kernel lets go of the lock with it")] File);

impl Making {
    pub fn of(home: &Home) -> io::Result<Self> {
        let folder = File::open(home.boxes())?;
        folder.lock_shared()?;
        Ok(Self(folder))
    }
}

impl Engine {
    /// Removes folders that no record names and no supervisor holds, and gives the bytes of the disk that they took. Where a box is being
    /// made at this moment, none.
    pub(super) fn remove_leftovers(&self) -> Result<u64, RemoveError> {
        let boxes = self.home().map_err(OpenError::from)?.boxes();
        let failed = |folder: &Path| {
            let folder = folder.to_path_buf();
            |source| RemoveError::Folder { folder, source }
        };
        let lock = File::open(&boxes).map_err(failed(&boxes))?;
        if lock.try_lock().is_err() {
            return Ok(0);
        }
        let mut bytes = 0;
        for entry in fs::read_dir(&boxes).map_err(failed(&boxes))?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| BoxId::try_from(name.to_owned()).ok()) else {
                continue;
            };
            let folder = entry.path();
            // A supervisor removes the record of a box of `--rm` before its folder.
            let recorded = match self.state()?.box_of(&id) {
                Ok(_) => true,
                Err(StateError::Unknown(_)) => false,
                Err(error) => return Err(error.into()),
            };
            if recorded || BoxLock::is_held(&folder) {
                continue;
            }
            let freed = disk_bytes(&folder);
            remove_folder(&folder).map_err(failed(&folder))?;
            bytes += freed;
        }
        Ok(bytes)
    }
}
