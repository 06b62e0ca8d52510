//! An image, as its manifest and its configuration among the blobs have it.

use super::Store;
use super::name::{UNNAMED, familiar};
use crate::config::{self, ImageConfig};
use crate::digest::Digest;
use crate::error::Result;
use crate::manifest::{self, LayerBlob, Manifest};
use std::collections::BTreeSet;

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

impl Store {
    /// A manifest that is here.
    pub(super) fn manifest(&self, digest: Digest) -> Result<Manifest> {
        Manifest::parse(&self.read_blob("manifest", &digest, manifest::MAX_BYTES)?)
    }

    /// The configuration a manifest names, which must be there.
    pub(crate) fn config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        ImageConfig::parse(&self.read_blob("configuration", &manifest.config, config::MAX_BYTES)?)
    }

    /// An image whose manifest and configuration are in the store, recorded or not. `index`: what led to its manifest.
    pub(crate) fn image_of(&self, reference: &str, manifest: Digest, index: Option<Digest>) -> Result<Image> {
        let digest = manifest;
        let bytes = self.read_blob("manifest", &digest, manifest::MAX_BYTES)?;
        let manifest = Manifest::parse(&bytes)?;
        let config = self.config(&manifest)?;
        manifest.fits(&config)?;
        let layers: u64 = manifest.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add);
        Ok(Image {
            reference: reference.to_owned(),
            manifest_digest: digest,
            manifest_size: bytes.len() as u64,
            media_type: manifest.media_type,
            repo_digest: index.unwrap_or(digest),
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
