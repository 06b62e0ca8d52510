//! From an image in the store to a file a guest can mount: merged, written, hashed, kept.

use crate::digest::Digest;
use crate::erofs::{self, EROFS_VERSION, Look};
use crate::error::{ImageError, Result};
use crate::layer::{Dropped, Limits, Merged, Merger};
use crate::store::{Image, Lock, Step, Store, read_at_most};
use crate::verity::{self, VerityTable};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A root file system: an EROFS image with its dm-verity tree behind it, in one file.
///
/// While one is held, no garbage collection takes its file. A box that is being made holds it until the box is recorded.
#[derive(Debug)]
pub struct Rootfs {
    /// The file; a multiple of 4096 bytes long, never changed.
    pub path: PathBuf,
    /// What dm-verity has to be told; goes into the workload specification.
    pub verity: VerityTable,
    /// Bytes of the file.
    pub size: u64,
    /// Made from the image with this configuration.
    pub config_digest: Digest,
    /// What of the image is not in it.
    pub dropped: Dropped,
    /// Whether it was there already.
    pub cached: bool,
    _in_use: Lock,
}

impl Rootfs {
    /// What lies where in it.
    ///
    /// # Errors
    /// [`ImageError::Io`].
    pub fn look(&self) -> Result<Look> {
        Look::open(&self.path).map_err(ImageError::io("read", &self.path))
    }
}

/// What is kept beside the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sidecar {
    size: u64,
    verity: VerityTable,
    #[serde(default)]
    dropped: Dropped,
}

impl Store {
    /// The root file system of an image; made on first use, then found. Takes seconds for large images.
    ///
    /// The same image gives the same bytes and the same root hash, on any machine.
    ///
    /// # Errors
    /// [`ImageError`] of class `corrupt`, `too-large`, `disk-full` or `io`; nothing half-made is left behind.
    pub fn rootfs(&self, image: &Image) -> Result<Rootfs> {
        self.rootfs_within(image, Limits::default())
    }

    /// As [`Store::rootfs`], for an image that no name leads to yet. What the same layers were made into before says nothing
    /// about the blobs that came now, so those are unpacked all the same, unless a name leads to this very manifest.
    pub(crate) fn rootfs_of_pulled(&self, image: &Image) -> Result<Rootfs> {
        let rootfs = self.rootfs(image)?;
        if rootfs.cached && !self.has_recorded(&image.manifest_digest)? {
            self.merge(image, Limits::default())?;
        }
        Ok(rootfs)
    }

    /// As [`Store::rootfs`], with other limits.
    pub fn rootfs_within(&self, image: &Image, limits: Limits) -> Result<Rootfs> {
        let name = root_name(image);
        let dir = self.dir().join("rootfs");
        let (path, sidecar_path) = (dir.join(format!("{name}.erofs")), dir.join(format!("{name}.json")));
        let in_use = self.use_lock()?;
        let build = self.lock(&format!("rootfs/{name}.lock"), FlockOperation::LockExclusive)?;
        // It is used now: which was used longest ago is asked by the limit of the store alone, so that a failure harms nobody.
        let _ = build.touch();
        if let Some(Sidecar { size, verity, dropped }) = kept(&path, &sidecar_path) {
            return Ok(Rootfs {
                path,
                verity,
                size,
                config_digest: image.config_digest,
                dropped,
                cached: true,
                _in_use: in_use,
            });
        }
        let merged = self.merge(image, limits)?;
        let file = self.scratch()?;
        self.step(Step::Write, file.path()).map_err(|error| ImageError::write(file.path(), 0, error))?;
        let written = erofs::write(&merged.tree, &merged.spool, file.as_file(), uuid(&image.config_digest))
            .map_err(|error| write_error(file.path(), error))?;
        let dropped = merged.dropped;
        drop(merged);
        let tree_bytes = verity::tree_blocks(written.bytes / erofs::BLOCK_SIZE) * erofs::BLOCK_SIZE;
        let verity = verity::append(file.as_file(), &salt(&image.config_digest))
            .map_err(|error| ImageError::write(file.path(), tree_bytes, error))?;
        let size = written.bytes + tree_bytes;
        self.publish(file, &path)?;
        let sidecar = serde_json::to_vec_pretty(&Sidecar { size, verity: verity.clone(), dropped })
            .map_err(|error| ImageError::Store { path: sidecar_path.clone(), reason: error.to_string() })?;
        let mut file = self.scratch()?;
        self.write(&mut file, &sidecar, sidecar.len() as u64)?;
        self.publish(file, &sidecar_path)?;
        let config_digest = image.config_digest;
        Ok(Rootfs { path, verity, size, config_digest, dropped, cached: false, _in_use: in_use })
    }

    /// What an image takes.
    pub fn space(&self, image: &Image) -> Space {
        let root = self.dir().join("rootfs").join(root_name(image));
        let (root, sidecar) = (root.with_extension("erofs"), root.with_extension("json"));
        Space {
            disk: image.blobs().iter().map(|blob| self.taken_by(blob)).sum::<u64>() + taken(&root),
            unpacked: kept(&root, &sidecar).map(|kept| kept.verity.data_blocks * u64::from(kept.verity.block_size)),
        }
    }

    /// Bytes of the disk that an image's root file system takes.
    pub(crate) fn root_taken(&self, image: &Image) -> u64 {
        taken(&self.dir().join("rootfs").join(root_name(image)).with_extension("erofs"))
    }

    /// Bytes of the disk that a blob takes.
    pub(crate) fn taken_by(&self, blob: &Digest) -> u64 {
        taken(&self.blob_path(blob))
    }

    /// When an image was used last, as far as that is known.
    pub(crate) fn last_used(&self, image: &Image) -> SystemTime {
        let lock = self.dir().join("rootfs").join(format!("{}.lock", root_name(image)));
        std::fs::metadata(lock).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// Merges the layers of an image.
    fn merge(&self, image: &Image, limits: Limits) -> Result<Merged> {
        let dir = self.dir().join("tmp");
        let spool = self
            .step(Step::Create, &dir)
            .and_then(|()| tempfile::tempfile_in(&dir))
            .map_err(ImageError::io("create a file in", &dir))?;
        let mut merger = Merger::new(spool, &dir, limits);
        for (layer, diff_id) in image.layers.iter().zip(&image.config.diff_ids) {
            let path = self.blob_path(&layer.digest);
            self.step(Step::Write, &dir).map_err(|error| ImageError::write(&dir, layer.size, error))?;
            let blob = File::open(&path).map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => ImageError::MissingBlob { what: "layer", digest: layer.digest },
                _ => ImageError::io("open", &path)(error),
            })?;
            let added = merger.add(layer.digest, blob, *diff_id);
            if let Err(error) = added {
                return Err(self.blame(error, &layer.digest));
            }
        }
        merger.make_folders(&image.config.volumes)?;
        merger.finish()
    }

    /// Tells a blob damaged on this disk from one that was made damaged. A damaged one is removed, so that the next pull
    /// brings it again.
    fn blame(&self, error: ImageError, layer: &Digest) -> ImageError {
        if error.class() != "corrupt" {
            return error;
        }
        let path = self.blob_path(layer);
        let found = match File::open(&path).and_then(Digest::of_reader) {
            Ok(found) if found != *layer => found,
            _ => return error,
        };
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, layer = %layer, "cannot remove a damaged layer");
        }
        ImageError::DamagedBlob { what: "layer", expected: *layer, found }
    }
}

fn taken(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// What an image takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the disk: its blobs and its root file system. What images share is counted with each of them.
    pub disk: u64,
    /// Bytes of the root file system as a guest sees it, holes included; `None` where it is not made yet.
    pub unpacked: Option<u64>,
}

/// The name of an image's root file system, without ending. Those of images with volumes have folders for them since, so that
/// an older one under the other name is not taken for it.
fn root_name(image: &Image) -> String {
    let folders = if image.config.volumes.is_empty() { "" } else { "f" };
    format!("{}-v{EROFS_VERSION}{folders}", image.config_digest.hex())
}

/// A table and a number.
const MAX_SIDECAR: u64 = 64 << 10;

fn kept(path: &Path, sidecar: &Path) -> Option<Sidecar> {
    let sidecar: Sidecar = serde_json::from_slice(&read_at_most(sidecar, MAX_SIDECAR).ok()??).ok()?;
    let size = std::fs::metadata(path).ok()?.len();
    (size == sidecar.size).then_some(sidecar)
}

pub(crate) fn write_error(path: &Path, error: erofs::WriteError) -> ImageError {
    match error {
        erofs::WriteError::Write { bytes, source } => ImageError::write(path, bytes, source),
        erofs::WriteError::Read(source) => ImageError::io("read the spool of", path)(source),
        erofs::WriteError::TooLarge => ImageError::TooLarge { what: "bytes of image", limit: 1 << 44 },
        erofs::WriteError::Attributes => ImageError::TooLarge { what: "bytes of extended attributes", limit: 1 << 18 },
    }
}

/// Both are fixed by the image, so that its bytes are.
fn derived(label: &str, config: &Digest) -> [u8; 32] {
    Sha256::new().chain_update(label).chain_update(config.as_bytes()).finalize().into()
}

fn salt(config: &Digest) -> [u8; 32] {
    derived("coffer/rootfs/verity-salt/v1", config)
}

/// A version 8 (custom) UUID, RFC 9562 §5.8.
fn uuid(config: &Digest) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&derived("coffer/rootfs/uuid/v1", config)[..16]);
    uuid[6] = uuid[6] & 0x0F | 0x80;
    uuid[8] = uuid[8] & 0x3F | 0x80;
    uuid
}
