//! What nothing leads to any more is removed.

use super::{Lock, Step, Store};
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;

/// What [`Collector::collect`] freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Files removed.
    pub files: u64,
    /// Bytes of the disk that they took.
    pub bytes: u64,
}

/// The store, taken for a garbage collection: nobody adds or uses anything while it is held.
#[derive(Debug)]
pub struct Collector<'a> {
    store: &'a Store,
    _use_lock: Lock,
}

impl Store {
    /// Takes the store for a garbage collection. Waits for nothing: `None` while a pull, a root file system or a box that
    /// is being made keeps it busy.
    pub fn collector(&self) -> Result<Option<Collector<'_>>> {
        match self.lock("use.lock", FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(Collector { store: self, _use_lock: lock })),
            Err(ImageError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(other) => Err(other),
        }
    }
}

impl Collector<'_> {
    /// Removes every blob no reference leads to, every root file system of an image neither referenced nor in `in_use`
    /// (configuration digests of existing boxes, read after the store was taken), and left-over temporary files.
    pub fn collect(self, in_use: &BTreeSet<Digest>) -> Result<Freed> {
        let store = self.store;
        let _index_lock = store.lock("index.lock", FlockOperation::LockExclusive)?;
        let index = store.read_index()?;
        let mut blobs = BTreeSet::new();
        let mut configs = in_use.clone();
        for entry in index.references.values() {
            blobs.insert(entry.manifest);
            blobs.extend(entry.index);
            match store.manifest(entry.manifest) {
                Ok(manifest) => {
                    blobs.insert(manifest.config);
                    configs.insert(manifest.config);
                    blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
                }
                // One that is gone or damaged leads nowhere; the next pull brings it back.
                Err(error) if error.class() == "corrupt" => {}
                Err(other) => return Err(other),
            }
        }
        let mut freed = Freed::default();
        let blob_names: BTreeSet<String> = blobs.iter().map(Digest::hex).collect();
        let config_names: BTreeSet<String> = configs.iter().map(Digest::hex).collect();
        store.sweep("blobs/sha256", |name| blob_names.contains(name), &mut freed)?;
        let is_wanted = |name: &str| name.split(['-', '.']).next().is_some_and(|config| config_names.contains(config));
        store.sweep("rootfs", is_wanted, &mut freed)?;
        store.sweep("partial", |_| false, &mut freed)?;
        store.sweep("tmp", |_| false, &mut freed)?;
        Ok(freed)
    }
}

impl Store {
    fn sweep(&self, folder: &str, keep: impl Fn(&str) -> bool, freed: &mut Freed) -> Result<()> {
        let dir = &self.dir.join(folder);
        for entry in std::fs::read_dir(dir).map_err(ImageError::io("read", dir))? {
            let entry = entry.map_err(ImageError::io("read", dir))?;
            if entry.file_name().to_str().is_some_and(&keep) {
                continue;
            }
            let size = entry.metadata().map_or(0, |meta| meta.blocks() * 512);
            let path = entry.path();
            self.step(Step::Remove, &path)
                .and_then(|()| std::fs::remove_file(&path))
                .map_err(ImageError::io("remove", &path))?;
            freed.files += 1;
            freed.bytes += size;
        }
        Ok(())
    }
}
