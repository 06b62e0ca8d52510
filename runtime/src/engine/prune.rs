//! Removes every box that does not run.

use std::path::Path;

use super::{Engine, Fault as _, Filter, OpenError, RemoveError};
use crate::Class;
use crate::id::BoxId;
use crate::state::BoxRecord;

/// What is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Which boxes.
    pub boxes: Vec<BoxId>,
    /// Bytes of the disk that they took.
    pub bytes: u64,
}

impl Engine {
    /// The boxes that a prune would remove: those that a filter admits, of before `until` (Unix milliseconds), that neither run
    /// nor are being started.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn prunable(&self, filter: &Filter, until: Option<i64>) -> Result<Vec<BoxRecord>, OpenError> {
        let mut boxes = self.list(filter)?;
        let mut failed = None;
        boxes.retain(|found| {
            let old = until.is_none_or(|until| found.created < until);
            old && !self.is_busy(found).unwrap_or_else(|error| {
                failed = Some(error);
                true
            })
        });
        failed.map_or(Ok(boxes), Err)
    }

    /// Removes them, and what is left of boxes whose creation or removal was killed. One that somebody else starts or removes meanwhile
    /// is left to them.
    ///
    /// # Errors
    /// [`RemoveError`]; what was removed before it is gone.
    pub async fn prune(&self, boxes: &[BoxRecord]) -> Result<Pruned, RemoveError> {
        let mut pruned = Pruned::default();
        for found in boxes {
            let bytes = disk_bytes(&self.home().map_err(OpenError::from)?.box_folder(&found.id));
            match self.remove(found.id.as_str(), false, false).await {
                Ok(()) => {
                    pruned.boxes.push(found.id.clone());
                    pruned.bytes += bytes;
                }
                Err(RemoveError::Running(_)) => {}
                Err(error) if error.class() == Class::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        pruned.bytes += self.remove_leftovers()?;
        Ok(pruned)
    }
}

impl Engine {
    /// Bytes of the disk that a box's own files take: spec, snapshots, logs, disks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn disk_bytes(&self, record: &BoxRecord) -> Result<u64, OpenError> {
        Ok(disk_bytes(&self.home()?.box_folder(&record.id)))
    }
}

/// Bytes of the disk that the files of a box's folder take. It has no folders of its own.
pub(super) fn disk_bytes(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|found| found.blocks() * 512).sum()
}
