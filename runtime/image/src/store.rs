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
//! <dir>/tmp/                 what is not finished; nothing here is believed
//! <dir>/{index,use}.lock     index.lock: changing the index; use.lock: shared by work in progress, exclusive to collect garbage
//! ```

use crate::config::{self, ImageConfig};
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest::{self, LayerBlob, Manifest};
use oci_client::{ParseError, Reference};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

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

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Canonical reference, `registry/repository:tag` or `registry/repository@digest`.
    pub reference: String,
    /// Digest of the image manifest.
    pub manifest_digest: Digest,
    /// Bytes of the manifest.
    pub manifest_size: u64,
    /// Media type of the manifest.
    pub media_type: String,
    /// Digest the registry names it by: the index where the image is one of several platforms, else the manifest.
    pub repo_digest: Digest,
    /// Digest of the configuration: the image's identity, Docker's image id.
    pub config_digest: Digest,
    /// What it asks to be run as.
    pub config: ImageConfig,
    /// Layers, bottom first; as many as `config.diff_ids`.
    pub layers: Vec<LayerBlob>,
    /// Bytes of manifest, configuration and compressed layers: what a pull of all of it downloads.
    pub size: u64,
}

/// What [`Store::list`] found.
#[derive(Debug, Default)]
pub struct Listing {
    /// Whole images, one per reference, sorted by reference.
    pub images: Vec<Image>,
    /// References whose manifest or configuration is damaged or gone, with what is wrong.
    pub damaged: Vec<Damaged>,
}

/// A reference that leads to no image any more.
#[derive(Debug)]
pub struct Damaged {
    /// Canonical reference.
    pub reference: String,
    /// Digest the registry named it by.
    pub repo_digest: Digest,
    /// What is wrong.
    pub error: ImageError,
}

/// What [`Store::remove`] removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Canonical references, no longer in the index.
    pub references: Vec<String>,
    /// The image that has no name any more; `None` where it has others, or its manifest was damaged or gone.
    pub config_digest: Option<Digest>,
}

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

    /// All images. One that is damaged hides no other.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn list(&self) -> Result<Listing> {
        let _in_use = self.use_lock()?;
        let mut listing = Listing::default();
        for (reference, entry) in &self.read_index()?.references {
            match self.image(reference, entry) {
                Ok(image) => listing.images.push(image),
                Err(error) => {
                    let repo_digest = entry.index.unwrap_or(entry.manifest);
                    listing.damaged.push(Damaged { reference: reference.clone(), repo_digest, error });
                }
            }
        }
        Ok(listing)
    }

    /// The image a person means: a reference in any spelling, or a digest (with or without `sha256:`) of its
    /// configuration or any unique prefix of one.
    ///
    /// # Errors
    /// [`ImageError::NotStored`], [`ImageError::Ambiguous`], [`ImageError::InvalidReference`].
    pub fn resolve(&self, name: &str) -> Result<Image> {
        let _in_use = self.use_lock()?;
        let index = self.read_index()?;
        let matches = self.find(&index, name)?;
        match matches.first() {
            Some(reference) => self.image(reference, &index.references[reference]),
            None => Err(ImageError::NotStored { name: name.to_owned() }),
        }
    }

    /// Gives an image one more name; what had it before loses it.
    ///
    /// # Errors
    /// As [`Store::resolve`]; class `usage` for a name with a digest, which only the image itself can give.
    pub fn tag(&self, name: &str, new: &str) -> Result<Image> {
        let _in_use = self.use_lock()?;
        let reference = parse_reference(new)?;
        if reference.digest().is_some() {
            let reason = "a digest is no name to give".to_owned();
            return Err(ImageError::InvalidReference { reference: new.to_owned(), reason });
        }
        let mut image = self.resolve(name)?;
        self.record(&reference, &image)?;
        image.reference = reference.whole();
        Ok(image)
    }

    /// Every reference that leads to this image.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn references(&self, image: &Image) -> Result<Vec<String>> {
        let index = self.read_index()?;
        let is_its = |entry: &&IndexEntry| entry.manifest == image.manifest_digest;
        let its = index.references.iter().filter(|(_, entry)| is_its(entry));
        Ok(its.map(|(reference, _)| reference.clone()).collect())
    }

    /// Removes a reference, or by digest all references of an image, from the index. Blobs stay until
    /// [`Collector::collect`], which the index's lock keeps out meanwhile. A damaged image can be removed by its reference.
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
        let config_digest = match self.manifest(index.references[first].manifest) {
            Ok(manifest) => Some(manifest.config),
            Err(error) if error.class() == "corrupt" => None,
            Err(other) => return Err(other),
        };
        let gone = index.references[first].manifest;
        for reference in &references {
            index.references.remove(reference);
        }
        let config_digest = config_digest.filter(|_| index.references.values().all(|entry| entry.manifest != gone));
        self.write_index(&index)?;
        Ok(Removed { references, config_digest })
    }

    /// Takes the store for a garbage collection. Waits for nothing: `None` while a pull, a root file system or a box that
    /// is being made keeps it busy.
    pub fn collector(&self) -> Result<Option<Collector<'_>>> {
        match self.lock("use.lock", FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(Collector { store: self, _use_lock: lock })),
            Err(ImageError::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(other) => Err(other),
        }
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

    /// A new private file in `tmp/`, removed when dropped.
    pub(crate) fn scratch(&self) -> Result<NamedTempFile> {
        let tmp = self.dir.join("tmp");
        self.step(Step::Create, &tmp)
            .and_then(|()| NamedTempFile::new_in(&tmp))
            .map_err(ImageError::io("create a file in", &tmp))
    }

    /// Where what came of a layer so far lies.
    pub(crate) fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("partial").join(digest.hex())
    }

    /// What came of a layer so far, at its start; it stays when it is dropped. `None` where another pull is at it.
    pub(crate) fn partial(&self, digest: &Digest) -> Result<Option<NamedTempFile>> {
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
                let mut file = NamedTempFile::from_parts(file, path);
                file.disable_cleanup(true);
                return Ok(Some(file));
            }
        }
    }

    /// Appends to a scratch file. `total`: bytes it will have, for messages.
    pub(crate) fn write(&self, file: &mut NamedTempFile, bytes: &[u8], total: u64) -> Result<()> {
        self.step(Step::Write, file.path())
            .and_then(|()| file.write_all(bytes))
            .map_err(|error| ImageError::write(file.path(), total, error))
    }

    /// Makes a finished file visible under its name: synced, renamed, and the rename synced.
    pub(crate) fn publish(&self, file: NamedTempFile, to: &Path) -> Result<()> {
        let size = file.as_file().metadata().map_or(0, |meta| meta.len());
        self.step(Step::Sync, file.path())
            .and_then(|()| file.as_file().sync_all())
            .map_err(|error| ImageError::write(file.path(), size, error))?;
        self.step(Step::Rename, to)
            .and_then(|()| file.persist(to).map(drop).map_err(|error| error.error))
            .map_err(|error| ImageError::write(to, size, error))?;
        let parent = to.parent().unwrap_or(&self.dir);
        self.step(Step::SyncFolder, parent)
            .and_then(|()| coffer_rim::file::sync_folder(parent))
            .map_err(ImageError::io("sync", parent))
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

    // --- index

    /// Records a pulled image, whose root file system the caller has made from these blobs.
    ///
    /// # Errors
    /// [`ImageError::MissingBlob`] where a layer is gone again; the old record stays.
    pub(crate) fn record(&self, reference: &Reference, image: &Image) -> Result<()> {
        let _lock = self.lock("index.lock", FlockOperation::LockExclusive)?;
        let mut file = self.read_index()?;
        let gone = image.layers.iter().find(|layer| !self.has_blob(&layer.digest, layer.size));
        if let Some(digest) = gone.map(|layer| layer.digest) {
            return Err(ImageError::MissingBlob { what: "layer", digest });
        }
        let (manifest, repo) = (image.manifest_digest, image.repo_digest);
        let entry = IndexEntry { manifest, index: Some(repo).filter(|repo| *repo != manifest) };
        file.references.insert(reference.whole(), entry);
        self.write_index(&file)
    }

    /// An image whose manifest and configuration are in the store, recorded or not.
    pub(crate) fn image_of(&self, reference: &str, manifest: Digest, index: Option<Digest>) -> Result<Image> {
        self.image(reference, &IndexEntry { manifest, index })
    }

    /// Whether a reference leads to this manifest.
    pub(crate) fn has_recorded(&self, manifest: &Digest) -> Result<bool> {
        Ok(self.read_index()?.references.values().any(|entry| entry.manifest == *manifest))
    }

    fn read_index(&self) -> Result<IndexFile> {
        let path = self.dir.join("index.json");
        let damaged = |reason: String| ImageError::Store { path: path.clone(), reason };
        let bytes = match read_at_most(&path, MAX_INDEX) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(damaged(format!("it is longer than {MAX_INDEX} bytes"))),
            Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(IndexFile::default()),
            Err(other) => return Err(ImageError::io("read", &path)(other)),
        };
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
        self.write(&mut file, &text, text.len() as u64)?;
        self.publish(file, &path)
    }

    /// The references `name` stands for: one by name, all of one image by digest.
    fn find(&self, index: &IndexFile, name: &str) -> Result<Vec<String>> {
        // As most people write it. The general way costs some milliseconds before it has looked at anything.
        let docker = format!("docker.io/library/{name}");
        let spellings = [name, docker.as_str()];
        let spelled = spellings.iter().take(if name.contains('/') { 1 } else { 2 });
        if let Some(known) = spelled.copied().find(|known| index.references.contains_key(*known)) {
            return Ok(vec![known.to_owned()]);
        }
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
        Manifest::parse(&self.read_blob("manifest", &digest, manifest::MAX_BYTES)?)
    }

    /// The configuration a manifest names, which must be there.
    pub(crate) fn config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        ImageConfig::parse(&self.read_blob("configuration", &manifest.config, config::MAX_BYTES)?)
    }

    fn image(&self, reference: &str, entry: &IndexEntry) -> Result<Image> {
        let bytes = self.read_blob("manifest", &entry.manifest, manifest::MAX_BYTES)?;
        let manifest = Manifest::parse(&bytes)?;
        let config = self.config(&manifest)?;
        manifest.fits(&config)?;
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        Ok(Image {
            reference: reference.to_owned(),
            manifest_digest: entry.manifest,
            manifest_size: bytes.len() as u64,
            media_type: manifest.media_type,
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
        familiar(&self.reference)
    }

    /// What it has among the blobs.
    pub(crate) fn blobs(&self) -> BTreeSet<Digest> {
        let documents = [self.manifest_digest, self.config_digest, self.repo_digest];
        documents.into_iter().chain(self.layers.iter().map(|layer| layer.digest)).collect()
    }

    /// Whether it came without a name, and has the one that is made of its digest.
    pub fn is_unnamed(&self) -> bool {
        self.reference.starts_with(UNNAMED)
    }
}

/// Where the names of images without one begin.
const UNNAMED: &str = "localhost/unnamed@";

/// The name of an image that has none.
pub(crate) fn unnamed(manifest: Digest) -> Result<Reference> {
    parse_reference(&format!("{UNNAMED}{manifest}"))
}

/// A canonical reference as people write it: without `docker.io/` and `library/`.
pub fn familiar(reference: &str) -> &str {
    let Some(name) = reference.strip_prefix("docker.io/") else { return reference };
    name.strip_prefix("library/").unwrap_or(name)
}

/// Parses a reference as Docker does: default registry, `library/`, tag `latest`; only SHA-256 digests.
///
/// # Errors
/// [`ImageError::InvalidReference`] with the reason.
pub fn parse_reference(text: &str) -> Result<Reference> {
    let error = |reason: String| ImageError::InvalidReference { reference: text.to_owned(), reason };
    let reference: Reference = text.parse().map_err(|parse: ParseError| error(parse.to_string()))?;
    if let Some(digest) = reference.digest() {
        digest.parse::<Digest>().map_err(|parse| error(parse.to_string()))?;
    }
    Ok(reference)
}

/// Without the tests' look at steps.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
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

/// `index.json` has some 200 bytes for each reference.
const MAX_INDEX: u64 = 32 << 20;
