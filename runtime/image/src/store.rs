//! The image store: content-addressed blobs and an index of references.
//!
//! A name moves last: a blob is whole, checked and synced before it has its name, and all blobs of an image have theirs, and
//! its root file system was made, before `index.json` names the image. What is refused or interrupted on the way leaves the old index in place.
//!
//! ```text
//! <dir>/blobs/sha256/<hex>   verified before they appear, never changed
//! <dir>/index.json           reference -> manifest, replaced atomically under index.lock
//! <dir>/rootfs/              images made from them, see rootfs.rs
//! <dir>/partial/<hex>        what came of a layer so far; locked by who adds to it, hashed again before it is used
//! <dir>/tmp/                 what is not finished, most of it without a name; nothing here is believed
//! <dir>/{index,use}.lock     index.lock: changing the index; use.lock: shared by work in progress, exclusive to collect garbage
//! ```

mod blobs;
mod collect;
mod image;
mod index;
mod name;
mod scratch;

use crate::error::{ImageError, Result};
pub(crate) use blobs::{document_bytes, read_at_most};
pub use collect::{Collector, Freed};
pub use image::Image;
pub use index::{Damaged, Listing, Removed};
pub(crate) use name::unnamed;
pub use name::{familiar, parse_reference};
use rustix::fs::FlockOperation;
pub(crate) use scratch::Scratch;
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder of images. Several processes may share it.
#[derive(Clone)]
pub struct Store {
    dir: PathBuf,
    before_step: Option<StepFn>,
}

/// A step that changes the store's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A file is made in `tmp/`.
    Create,
    /// Bytes go into it.
    Write,
    /// They are made to last.
    Sync,
    /// It gets its name.
    Rename,
    /// The name is made to last.
    SyncFolder,
    /// A file nothing leads to is removed.
    Remove,
}

/// Called before a step with the path it is about; its error becomes the step's.
pub type StepFn = Arc<dyn Fn(Step, &Path) -> io::Result<()> + Send + Sync>;

/// While it is held, no garbage collection takes what a reference led to.
#[derive(Debug)]
pub struct Hold(#[allow(dead_code, reason = "held for its lock")] Lock);

/// A held `flock`; released when dropped, or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Gives the file the time that it is.
    pub(crate) fn touch(&self) -> io::Result<()> {
        self.0.set_modified(std::time::SystemTime::now())
    }
}

impl Store {
    /// Opens the store in `dir`, which is made (mode 0700) where it is absent.
    ///
    /// # Errors
    /// [`ImageError::Io`] or [`ImageError::DiskFull`] naming the folder.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let store = Self { dir: dir.into(), before_step: None };
        for sub in ["blobs/sha256", "rootfs", "partial", "tmp"] {
            let path = store.dir.join(sub);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(ImageError::io("create", &path))?;
        }
        Ok(store)
    }

    /// The same store, with a look at each step before it is taken. For tests of what failures and interruptions leave.
    #[must_use]
    pub fn before_steps(mut self, before_step: StepFn) -> Self {
        self.before_step = Some(before_step);
        self
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Keeps what references lead to from being collected for as long as it is held, by this process and others. Who finds
    /// an image and then uses it holds this over both.
    pub fn hold(&self) -> Result<Hold> {
        Ok(Hold(self.use_lock()?))
    }

    pub(crate) fn step(&self, step: Step, path: &Path) -> io::Result<()> {
        self.before_step.as_ref().map_or(Ok(()), |look| look(step, path))
    }

    /// Held while blobs are being used or added, so that nothing collects them.
    pub(crate) fn use_lock(&self) -> Result<Lock> {
        self.lock("use.lock", FlockOperation::LockShared)
    }

    pub(crate) fn lock(&self, name: &str, operation: FlockOperation) -> Result<Lock> {
        let path = self.dir.join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(ImageError::io("open", &path))?;
        loop {
            match rustix::fs::flock(&file, operation) {
                Ok(()) => return Ok(Lock(file)),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(ImageError::io("lock", &path)(error.into())),
            }
        }
    }
}

/// Without the tests' look at steps.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}
