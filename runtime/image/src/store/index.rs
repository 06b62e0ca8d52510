//! The index: which names lead to which manifests. It is read anew each time, and replaced whole.

use super::Store;
use super::blobs::read_at_most;
use super::image::Image;
use super::name::parse_reference;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use oci_client::Reference;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

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

/// `index.json` as written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexFile {
    version: u32,
    pub(super) references: BTreeMap<String, IndexEntry>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexEntry {
    pub(super) manifest: Digest,
    pub(super) index: Option<Digest>,
}

const INDEX_VERSION: u32 = 1;

impl Store {
    /// All images. One that is damaged hides no other.
    ///
    /// # Errors
    /// Where the index cannot be read.
    pub fn list(&self) -> Result<Listing> {
        let _in_use = self.use_lock()?;
        let mut listing = Listing::default();
        for (reference, entry) in &self.read_index()?.references {
            match self.image_of(reference, entry.manifest, entry.index) {
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
            Some(reference) => {
                let entry = &index.references[reference];
                self.image_of(reference, entry.manifest, entry.index)
            }
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
        self.record(std::slice::from_ref(&reference), &image)?;
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

    /// Records an image under these names, in one write. The caller has made its root file system from these blobs.
    ///
    /// # Errors
    /// [`ImageError::MissingBlob`] where a layer is gone again, [`ImageError::Names`]; the old record stays.
    pub(crate) fn record(&self, references: &[Reference], image: &Image) -> Result<()> {
        let _lock = self.lock("index.lock", FlockOperation::LockExclusive)?;
        let mut file = self.read_index()?;
        let gone = image.layers.iter().find(|layer| !self.has_blob(&layer.digest, layer.size));
        if let Some(digest) = gone.map(|layer| layer.digest) {
            return Err(ImageError::MissingBlob { what: "layer", digest });
        }
        let (manifest, repo) = (image.manifest_digest, image.repo_digest);
        let entry = IndexEntry { manifest, index: Some(repo).filter(|repo| *repo != manifest) };
        file.references.extend(references.iter().map(|reference| (reference.whole(), entry.clone())));
        self.write_index(&file)
    }

    /// Whether a reference leads to this manifest.
    pub(crate) fn has_recorded(&self, manifest: &Digest) -> Result<bool> {
        Ok(self.read_index()?.references.values().any(|entry| entry.manifest == *manifest))
    }

    pub(super) fn read_index(&self) -> Result<IndexFile> {
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
        // Nobody could read it again.
        if text.len() as u64 > MAX_INDEX {
            return Err(ImageError::Names { limit: MAX_INDEX });
        }
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
}

/// `index.json` has some 200 bytes for each reference.
const MAX_INDEX: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let entry = IndexEntry { manifest: Digest::of(b""), index: None };
        let mut index = IndexFile::default();
        index.references.insert("localhost/a:1".to_owned(), entry.clone());
        store.write_index(&index).unwrap();
        let long = "x".repeat(1 << 20);
        index.references.extend((0..32).map(|number| (format!("{number}{long}"), entry.clone())));
        let error = store.write_index(&index).unwrap_err();
        assert!(matches!(error, ImageError::Names { .. }), "{error}");
        assert_eq!(store.read_index().unwrap().references.len(), 1, "the old one stays");
    }
}
