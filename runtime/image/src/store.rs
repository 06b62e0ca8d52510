//! The image store: content-addressed blobs and an index of references.
//!
//! ```text
//! <dir>/blobs/sha256/<hex>   verified before they appear, never changed
//! <dir>/index.json           reference -> manifest, replaced atomically under index.lock
//! <dir>/rootfs/              images made from them, see rootfs.rs
//! <dir>/tmp/                 what is not finished; nothing here is believed
//! <dir>/{index,use}.lock     index.lock: changing the index; use.lock: shared by work in progress, exclusive to collect garbage
//! ```

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use oci_client::Reference;
use oci_client::manifest::OciImageManifest;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// A folder of images. Several processes may share it.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Canonical reference, `registry/repository:tag` or `registry/repository@digest`.
    pub reference: String,
    /// Digest of the image manifest.
    pub manifest_digest: Digest,
    /// Digest the registry names it by: the index where the image is one of several platforms, else the manifest.
    pub repo_digest: Digest,
    /// Digest of the configuration: the image's identity, Docker's image id.
    pub config_digest: Digest,
    /// What it asks to be run as.
    pub config: ImageConfig,
    /// Layers, bottom first; as many as `config.diff_ids`.
    pub layers: Vec<LayerBlob>,
    /// Bytes of manifest, configuration and compressed layers.
    pub size: u64,
}

/// A compressed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// As the manifest says.
    pub media_type: String,
}

/// What [`Store::remove`] removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Canonical references, no longer in the index.
    pub references: Vec<String>,
    /// The image they named.
    pub config_digest: Digest,
}

/// What [`Store::collect_garbage`] freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Files removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Work in progress kept the store busy, and nothing was collected.
    pub busy: bool,
}

/// `index.json` as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexFile {
    version: u32,
    references: BTreeMap<String, IndexEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IndexEntry {
    manifest: Digest,
    index: Option<Digest>,
}

const INDEX_VERSION: u32 = 1;

/// A held `flock`; released when dropped, or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held for its lock")] File);

impl Store {
    /// Opens the store in `dir`, which is made (mode 0700) where it is absent.
    ///
    /// # Errors
    /// [`ImageError::Io`] or [`ImageError::DiskFull`] naming the folder.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self> {
        let store = Self { dir: dir.into() };
        for sub in ["blobs/sha256", "rootfs", "tmp"] {
            let path = store.dir.join(sub);
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(ImageError::io("create", &path))?;
        }
        Ok(store)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All images, one per reference, sorted by reference.
    pub fn list(&self) -> Result<Vec<Image>> {
        let index = self.read_index()?;
        index.references.iter().map(|(reference, entry)| self.load(reference, entry)).collect()
    }

    /// The image a person means: a reference in any spelling, or a digest (with or without `sha256:`) of its
    /// configuration or any unique prefix of one.
    ///
    /// # Errors
    /// [`ImageError::NotStored`], [`ImageError::Ambiguous`], [`ImageError::InvalidReference`].
    pub fn resolve(&self, name: &str) -> Result<Image> {
        let index = self.read_index()?;
        let matches = self.find(&index, name)?;
        match matches.first() {
            Some(reference) => self.load(reference, &index.references[reference]),
            None => Err(ImageError::NotStored { name: name.to_owned() }),
        }
    }

    /// Removes a reference, or by digest all references of an image, from the index. Blobs stay until
    /// [`Store::collect_garbage`].
    ///
    /// # Errors
    /// As [`Store::resolve`].
    pub fn remove(&self, name: &str) -> Result<Removed> {
        let _lock = self.lock("index.lock", FlockOperation::LockExclusive)?;
        let mut index = self.read_index()?;
        let references = self.find(&index, name)?;
        let Some(first) = references.first() else {
            return Err(ImageError::NotStored { name: name.to_owned() });
        };
        let config_digest = self.manifest(index.references[first].manifest)?.config;
        for reference in &references {
            index.references.remove(reference);
        }
        self.write_index(&index)?;
        Ok(Removed { references, config_digest })
    }

    /// Removes every blob no reference leads to, every root file system of an image neither referenced nor in `in_use`
    /// (configuration digests of existing boxes), and left-over temporary files.
    ///
    /// Waits for nothing: while a pull or a root file system is in progress it answers `busy`.
    pub fn collect_garbage(&self, in_use: &BTreeSet<Digest>) -> Result<Freed> {
        let _use_lock = match self.lock("use.lock", FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => lock,
            Err(ImageError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {
                return Ok(Freed { busy: true, ..Freed::default() });
            }
            Err(other) => return Err(other),
        };
        let _index_lock = self.lock("index.lock", FlockOperation::LockExclusive)?;
        let index = self.read_index()?;
        let mut blobs = BTreeSet::new();
        let mut configs = in_use.clone();
        for entry in index.references.values() {
            blobs.insert(entry.manifest);
            blobs.extend(entry.index);
            // A manifest that is gone leads nowhere; the next pull brings it back.
            if let Ok(manifest) = self.manifest(entry.manifest) {
                blobs.insert(manifest.config);
                configs.insert(manifest.config);
                blobs.extend(manifest.layers.iter().map(|layer| layer.digest));
            }
        }
        let mut freed = Freed::default();
        let blob_names: BTreeSet<String> = blobs.iter().map(Digest::hex).collect();
        let config_names: BTreeSet<String> = configs.iter().map(Digest::hex).collect();
        sweep(&self.dir.join("blobs/sha256"), |name| blob_names.contains(name), &mut freed)?;
        sweep(
            &self.dir.join("rootfs"),
            |name| name.split(['-', '.']).next().is_some_and(|config| config_names.contains(config)),
            &mut freed,
        )?;
        sweep(&self.dir.join("tmp"), |_| false, &mut freed)?;
        Ok(freed)
    }

    // --- blobs

    /// Where a blob lies, if it does. Blobs are verified before they appear.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Whether the blob is here with this size.
    pub(crate) fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        std::fs::metadata(self.blob_path(digest)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    pub(crate) fn read_blob(&self, what: &'static str, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
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
        file.write_all(bytes).map_err(|error| ImageError::write(file.path(), bytes.len() as u64, error))?;
        self.publish(file, &self.blob_path(digest))
    }

    /// A new private file in `tmp/`, removed when dropped.
    pub(crate) fn scratch(&self) -> Result<NamedTempFile> {
        let tmp = self.dir.join("tmp");
        NamedTempFile::new_in(&tmp).map_err(ImageError::io("create a file in", &tmp))
    }

    /// Makes a finished file visible under its name: synced, renamed, and the rename synced.
    pub(crate) fn publish(&self, file: NamedTempFile, to: &Path) -> Result<()> {
        let size = file.as_file().metadata().map_or(0, |meta| meta.len());
        file.as_file().sync_all().map_err(|error| ImageError::write(file.path(), size, error))?;
        file.persist(to).map_err(|error| ImageError::write(to, size, error.error))?;
        let parent = to.parent().unwrap_or(&self.dir);
        File::open(parent).and_then(|dir| dir.sync_all()).map_err(ImageError::io("sync", parent))
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

    // --- index

    /// Records a pulled image; the blobs it names are in place.
    pub(crate) fn record(&self, reference: &Reference, manifest: Digest, index: Option<Digest>) -> Result<Image> {
        let _lock = self.lock("index.lock", FlockOperation::LockExclusive)?;
        let mut file = self.read_index()?;
        let entry = IndexEntry { manifest, index };
        let reference = reference.whole();
        let image = self.load(&reference, &entry)?;
        file.references.insert(reference, entry);
        self.write_index(&file)?;
        Ok(image)
    }

    fn read_index(&self) -> Result<IndexFile> {
        let path = self.dir.join("index.json");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(IndexFile::default()),
            Err(other) => return Err(ImageError::io("read", &path)(other)),
        };
        let damaged = |reason: String| ImageError::Store { path: path.clone(), reason };
        let index: IndexFile = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if index.version == INDEX_VERSION {
            Ok(index)
        } else {
            Err(damaged(format!("format version {}, expected {INDEX_VERSION}", index.version)))
        }
    }

    fn write_index(&self, index: &IndexFile) -> Result<()> {
        let path = self.dir.join("index.json");
        let index = IndexFile { version: INDEX_VERSION, references: index.references.clone() };
        let text = serde_json::to_vec_pretty(&index)
            .map_err(|error| ImageError::Store { path: path.clone(), reason: error.to_string() })?;
        let mut file = self.scratch()?;
        file.write_all(&text).map_err(|error| ImageError::write(&path, text.len() as u64, error))?;
        self.publish(file, &path)
    }

    /// The references `name` stands for: one by name, all of one image by digest.
    fn find(&self, index: &IndexFile, name: &str) -> Result<Vec<String>> {
        let parsed = parse_reference(name);
        if let Ok(reference) = &parsed
            && index.references.contains_key(&reference.whole())
        {
            return Ok(vec![reference.whole()]);
        }
        // `name:tag@digest` and `name@digest` of an image pulled by tag.
        if let Ok(reference) = &parsed
            && let Some(digest) = reference.digest()
        {
            let same = |(known, entry): &(&String, &IndexEntry)| {
                let known = parse_reference(known).ok();
                known.is_some_and(|known| {
                    known.registry() == reference.registry() && known.repository() == reference.repository()
                }) && (entry.manifest.to_string() == digest || entry.index.is_some_and(|it| it.to_string() == digest))
            };
            return Ok(index.references.iter().filter(same).map(|(known, _)| known.clone()).collect());
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return parsed.map(|_| Vec::new());
        }
        let mut by_image: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (reference, entry) in &index.references {
            if let Ok(manifest) = self.manifest(entry.manifest)
                && manifest.config.hex().starts_with(&prefix.to_ascii_lowercase())
            {
                by_image.entry(manifest.config).or_default().push(reference.clone());
            }
        }
        match by_image.len() {
            0 => Ok(Vec::new()),
            1 => Ok(by_image.into_values().next().unwrap_or_default()),
            count => Err(ImageError::Ambiguous { prefix: name.to_owned(), count }),
        }
    }

    fn manifest(&self, digest: Digest) -> Result<Manifest> {
        Manifest::parse(&self.read_blob("manifest", &digest)?)
    }

    fn load(&self, reference: &str, entry: &IndexEntry) -> Result<Image> {
        let bytes = self.read_blob("manifest", &entry.manifest)?;
        let manifest = Manifest::parse(&bytes)?;
        let config = ImageConfig::parse(&self.read_blob("configuration", &manifest.config)?)?;
        manifest.fits(&config)?;
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        Ok(Image {
            reference: reference.to_owned(),
            manifest_digest: entry.manifest,
            repo_digest: entry.index.unwrap_or(entry.manifest),
            config_digest: manifest.config,
            config,
            layers: manifest.layers,
            size: layers.saturating_add(manifest.config_size).saturating_add(bytes.len() as u64),
        })
    }
}

impl Image {
    /// The name as people write it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> &str {
        let name = self.reference.strip_prefix("docker.io/").unwrap_or(&self.reference);
        name.strip_prefix("library/").unwrap_or(name)
    }
}

/// Parses a reference as Docker does: default registry, `library/`, tag `latest`; only SHA-256 digests.
///
/// # Errors
/// [`ImageError::InvalidReference`] with the reason.
pub fn parse_reference(text: &str) -> Result<Reference> {
    let error = |reason: String| ImageError::InvalidReference { reference: text.to_owned(), reason };
    let reference: Reference = text.parse().map_err(|parse: oci_client::ParseError| error(parse.to_string()))?;
    if let Some(digest) = reference.digest() {
        digest.parse::<Digest>().map_err(|parse| error(parse.to_string()))?;
    }
    Ok(reference)
}

/// An image manifest as we compute with it.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    pub(crate) config: Digest,
    pub(crate) config_size: u64,
    pub(crate) layers: Vec<LayerBlob>,
}

impl Manifest {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let digest = Digest::of(bytes);
        let malformed = |reason: String| ImageError::Malformed { what: "manifest", digest, reason };
        let wire: OciImageManifest = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if wire.schema_version != 2 {
            return Err(malformed(format!("schema version {}, expected 2", wire.schema_version)));
        }
        if wire.layers.len() > MAX_LAYERS {
            return Err(malformed(format!("{} layers, at most {MAX_LAYERS} are allowed", wire.layers.len())));
        }
        let named = |text: &str| text.parse::<Digest>().map_err(|error| malformed(error.to_string()));
        let sized = |size: i64| u64::try_from(size).map_err(|_| malformed(format!("a size of {size} bytes")));
        let mut layers = Vec::with_capacity(wire.layers.len());
        for layer in &wire.layers {
            if !layer.media_type.contains(".tar") {
                return Err(malformed(format!("layer {} of type {}, expected a tar", layer.digest, layer.media_type)));
            }
            layers.push(LayerBlob {
                digest: named(&layer.digest)?,
                size: sized(layer.size)?,
                media_type: layer.media_type.clone(),
            });
        }
        Ok(Self { digest, config: named(&wire.config.digest)?, config_size: sized(wire.config.size)?, layers })
    }

    /// Checks that manifest and configuration tell of the same layers.
    pub(crate) fn fits(&self, config: &ImageConfig) -> Result<()> {
        let (found, expected) = (self.layers.len(), config.diff_ids.len());
        if found == expected {
            return Ok(());
        }
        let reason = format!("{found} layers, its configuration lists {expected}");
        Err(ImageError::Malformed { what: "manifest", digest: self.digest, reason })
    }
}

/// Docker's own limit is 127; some builders go beyond.
const MAX_LAYERS: usize = 512;

fn sweep(dir: &Path, keep: impl Fn(&str) -> bool, freed: &mut Freed) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(ImageError::io("read", dir))? {
        let entry = entry.map_err(ImageError::io("read", dir))?;
        if entry.file_name().to_str().is_some_and(&keep) {
            continue;
        }
        let size = entry.metadata().map_or(0, |meta| meta.len());
        let path = entry.path();
        std::fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
        freed.files += 1;
        freed.bytes += size;
    }
    Ok(())
}
