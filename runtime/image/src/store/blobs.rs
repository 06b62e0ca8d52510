//! Blobs: verified before they appear, read by their digest; and the files that become them.

use super::{Scratch, Step, Store};
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

impl Store {
    /// Where a blob lies, if it does. Blobs are verified before they appear.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is here with this size.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        std::fs::metadata(self.blob_path(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    /// Whether the blob is here, and its bytes are what its name says.
    pub(crate) fn holds_whole_blob(&self, digest: &Digest, size: u64) -> bool {
        self.has_blob(digest, size)
            && File::open(self.blob_path(digest)).and_then(Digest::of_reader).is_ok_and(|found| found == *digest)
    }

    /// A document among the blobs; `what` says which, `limit` how long it may be.
    pub(crate) fn read_blob(&self, what: &'static str, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = match read_at_most(&path, limit) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(ImageError::TooLarge { what: document_bytes(what), limit }),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
                return Err(ImageError::MissingBlob { what, digest: *digest });
            }
            Err(other) => return Err(ImageError::io("read", &path)(other)),
        };
        let found = Digest::of(&bytes);
        if found == *digest { Ok(bytes) } else { Err(ImageError::DamagedBlob { what, expected: *digest, found }) }
    }

    /// Keeps bytes whose digest was checked by the caller.
    pub(crate) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let mut file = self.scratch()?;
        self.write(&mut file, bytes, bytes.len() as u64)?;
        self.publish(file, &self.blob_path(digest))
    }

    /// A new private file in `tmp/`, gone when dropped.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let tmp = self.dir.join("tmp");
        self.step(Step::Create, &tmp)
            .and_then(|()| Scratch::new(&tmp))
            .map_err(ImageError::io("create a file in", &tmp))
    }

    /// Where what came of a layer so far lies.
    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("partial").join(digest.hex())
    }

    /// What came of a layer so far, at its start; it stays when it is dropped. `None` where another pull is at it.
    pub(crate) fn partial(&self, digest: &Digest) -> Result<Option<Scratch>> {
        let path = self.partial_path(digest);
        let failed = |action| ImageError::io(action, &path);
        loop {
            self.step(Step::Create, &path).map_err(failed("create"))?;
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
            let file = options.open(&path).map_err(failed("open"))?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed("lock")(error.into())),
            }
            // Who had it before may have given it its name as a blob, which nothing may be added to.
            let own = file.metadata().map_err(failed("read"))?;
            let there = match std::fs::metadata(&path) {
                Ok(there) => there,
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read")(error)),
            };
            if (own.dev(), own.ino()) == (there.dev(), there.ino()) {
                let path = tempfile::TempPath::try_from_path(&path).map_err(failed("name"))?;
                let mut partial = Scratch::named(file, path);
                partial.stays(true);
                return Ok(Some(partial));
            }
        }
    }

    /// Appends to a scratch file. `total`: bytes it will have, for messages.
    pub(crate) fn write(&self, file: &mut Scratch, bytes: &[u8], total: u64) -> Result<()> {
        self.step(Step::Write, file.path())
            .and_then(|()| file.write_all(bytes))
            .map_err(|error| ImageError::write(file.path(), total, error))
    }

    /// Makes a finished file visible under its name: synced, renamed, and the rename synced.
    pub(crate) fn publish(&self, file: Scratch, to: &Path) -> Result<()> {
        let size = file.as_file().metadata().map_or(0, |meta| meta.len());
        self.step(Step::Sync, file.path())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|error| ImageError::write(file.path(), size, error))?;
        self.step(Step::Rename, to)
            .and_then(|()| file.persist(to))
            .map_err(|error| ImageError::write(to, size, error))?;
        let parent = to.parent().unwrap_or(&self.dir);
        self.step(Step::SyncFolder, parent)
            .and_then(|()| coffer_rim::file::sync_folder(parent))
            .map_err(ImageError::io("sync", parent))
    }
}

/// A whole file; `None` where it is longer than `limit`, of which no more is read.
pub(crate) fn read_at_most(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// How [`ImageError::TooLarge`] names the bytes of a document.
pub(crate) fn document_bytes(what: &'static str) -> &'static str {
    match what {
        "configuration" => "bytes of image configuration",
        _ => "bytes of manifest",
    }
}
