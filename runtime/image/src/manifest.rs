//! Image manifests and indexes: what they say, as we compute with it.
//!
//! The documents are oci-client's types. What is kept of them is ours, small and checked. A document has at most
//! [`MAX_BYTES`], of which a reader can be made to hold some twelve times as much (lists of empty texts), for as long as it
//! takes to read it. `OciManifest`, which tries one form after the other, would hold several times more and is not used.
//!
//! Trusts: nothing. Lengths, counts and digests are checked before they are used.
//! Source: OCI Image Specification 1.1, "Image Manifest", "Image Index".

use crate::config::ImageConfig;
use crate::digest::{Digest, DigestError};
use crate::error::{ImageError, Result};
use crate::platform::Platform;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
    OciImageIndex, OciImageManifest,
};
use serde::Deserialize;
use std::collections::BTreeSet;

/// Longest manifest or index in bytes; what registries accept.
pub(crate) const MAX_BYTES: u64 = 4 << 20;
/// Docker's own limit is 127; some builders go beyond.
pub(crate) const MAX_LAYERS: usize = 512;
/// Platforms named in a message.
const MAX_SHOWN: usize = 12;
/// Longest name of one in bytes that an error shows.
const MAX_PLATFORM: usize = 40;

pub(crate) use oci_client::manifest::{
    IMAGE_CONFIG_MEDIA_TYPE as CONFIG_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE as INDEX_TYPE,
    OCI_IMAGE_MEDIA_TYPE as MANIFEST_TYPE,
};

/// Media types a registry is asked for.
pub(crate) const MEDIA_TYPES: [&str; 4] =
    [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];

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

/// An image manifest.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: Digest,
    /// Its own, as the manifest says; the OCI one where it says none.
    pub(crate) media_type: String,
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
        let length = |size: i64| u64::try_from(size).map_err(|_| malformed(format!("a blob of {size} bytes")));
        let media_type = wire.media_type.unwrap_or_else(|| MANIFEST_TYPE.to_owned());
        if !MEDIA_TYPES.contains(&media_type.as_str()) {
            return Err(malformed(format!("it says to be of type \"{media_type}\"")));
        }
        let config = named(&wire.config.digest)?;
        let mut layers = Vec::with_capacity(wire.layers.len());
        for layer in wire.layers {
            let digest = named(&layer.digest)?;
            if !layer.media_type.contains(".tar") {
                return Err(malformed(format!("layer {digest} of type \"{}\", expected a tar", layer.media_type)));
            }
            layers.push(LayerBlob { digest, size: length(layer.size)?, media_type: layer.media_type });
        }
        Ok(Self { digest, media_type, config, config_size: length(wire.config.size)?, layers })
    }

    /// What it names: configuration and layers, with their sizes.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (&'static str, Digest, u64)> {
        let layers = self.layers.iter().map(|layer| ("layer", layer.digest, layer.size));
        std::iter::once(("configuration", self.config, self.config_size)).chain(layers)
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

/// An index has `manifests`, a manifest has `layers`; media types are optional in both.
pub(crate) fn is_index(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Shape {
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Shape>(bytes).is_ok_and(|shape| shape.manifests.is_some() && shape.layers.is_none())
}

/// What an index leads to.
#[derive(Debug, Default)]
struct Choices {
    /// Documents worth asking for, best first: manifests for the platform, the plain one before those for a level of it; then
    /// indexes, and what says no platform.
    wanted: Vec<Digest>,
    /// Names of the platforms it has images for.
    platforms: BTreeSet<String>,
}

/// Looks through an index for images for a platform.
fn choices(digest: Digest, bytes: &[u8], wanted: &Platform) -> Result<Choices> {
    let malformed = |reason: String| ImageError::Malformed { what: "index", digest, reason };
    let index: OciImageIndex = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let short = |name: String| if name.len() <= MAX_PLATFORM { name } else { format!("one of {} bytes", name.len()) };
    let mut platforms = BTreeSet::new();
    let mut ranked = Vec::new();
    for entry in &index.manifests {
        let is_index =
            [OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE].contains(&entry.media_type.as_str());
        let rank = match &entry.platform {
            // An index may say the platform of all that is in it, or nothing.
            None => Some(String::new()),
            Some(platform) => {
                let (os, architecture) = (platform.os.to_string(), platform.architecture.to_string());
                wanted.rank(&os, &architecture, platform.variant.as_deref())
            }
        };
        if let Some(rank) = rank {
            let named: Digest = entry.digest.parse().map_err(|error: DigestError| malformed(error.to_string()))?;
            ranked.push(((is_index, entry.platform.is_none(), rank), named));
        }
        // Entries of unknown platform are attestations of builders.
        if let Some(platform) = entry.platform.as_ref().filter(|platform| platform.os.to_string() != "unknown") {
            platforms.insert(short(format!("{}/{}", platform.os, platform.architecture)));
        }
    }
    ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
    let wanted = ranked.into_iter().map(|(_, digest)| digest).collect();
    Ok(Choices { wanted, platforms })
}

/// A way through indexes to an image, whoever reads them: best entries first, and no document twice.
#[derive(Debug)]
pub(crate) struct Search {
    top: Digest,
    wanted: Platform,
    platforms: BTreeSet<String>,
    seen: BTreeSet<Digest>,
    pending: Vec<Digest>,
}

/// Documents that are read to find an image in an index: nobody nests more than two or three.
const MAX_DOCUMENTS: usize = 16;

impl Search {
    /// From an index.
    pub(crate) fn new(top: Digest, bytes: &[u8], wanted: &Platform) -> Result<Self> {
        let (platforms, pending) = (BTreeSet::new(), Vec::new());
        let mut search = Self { top, wanted: wanted.clone(), platforms, seen: BTreeSet::from([top]), pending };
        search.enter(top, bytes)?;
        Ok(search)
    }

    fn enter(&mut self, digest: Digest, bytes: &[u8]) -> Result<()> {
        let found = choices(digest, bytes, &self.wanted)?;
        self.platforms.extend(found.platforms);
        self.pending.extend(found.wanted.into_iter().rev());
        Ok(())
    }

    /// The document to read now; `None` where there is no more.
    pub(crate) fn next(&mut self) -> Result<Option<Digest>> {
        while let Some(digest) = self.pending.pop() {
            if self.seen.insert(digest) {
                if self.seen.len() > MAX_DOCUMENTS {
                    let reason =
                        format!("its indexes lead to more than {MAX_DOCUMENTS} documents before one is an image");
                    return Err(ImageError::Malformed { what: "index", digest: self.top, reason });
                }
                return Ok(Some(digest));
            }
        }
        Ok(None)
    }

    /// What it says, whose digest was checked: the manifest itself, where it is one.
    pub(crate) fn answer(&mut self, digest: Digest, bytes: Vec<u8>) -> Result<Option<Vec<u8>>> {
        if !is_index(&bytes) {
            return Ok(Some(bytes));
        }
        self.enter(digest, &bytes)?;
        Ok(None)
    }

    /// Why there is none. `name`: of what was searched.
    pub(crate) fn nothing(&self, name: &str) -> ImageError {
        no_platform(name, &self.wanted, &self.platforms)
    }
}

/// No image of these platforms is one for us.
fn no_platform(name: &str, wanted: &Platform, platforms: &BTreeSet<String>) -> ImageError {
    let shown: Vec<_> = platforms.iter().take(MAX_SHOWN).map(String::as_str).collect();
    let available = match (platforms.is_empty(), platforms.len() - shown.len()) {
        (true, _) => "unnamed platforms".to_owned(),
        (_, 0) => shown.join(", "),
        (_, more) => format!("{} and {more} more", shown.join(", ")),
    };
    ImageError::Platform { reference: name.to_owned(), wanted: wanted.to_string(), available }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str, Option<&str>)]) -> Vec<u8> {
        let manifests: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, (os, architecture, variant))| {
                let mut platform = serde_json::json!({"os": os, "architecture": architecture});
                if let Some(variant) = variant {
                    platform["variant"] = (*variant).into();
                }
                serde_json::json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
                    "digest": Digest::of(&[number as u8]).to_string(), "platform": platform})
            })
            .collect();
        serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": manifests})).unwrap()
    }

    #[test]
    fn chooses_plain_linux_amd64_among_platforms() {
        let choose = |bytes: &[u8], wanted: &str| {
            let wanted: Platform = wanted.parse().unwrap();
            let found = choices(Digest::of(bytes), bytes, &wanted).unwrap();
            found.wanted.first().copied().ok_or_else(|| no_platform("busybox", &wanted, &found.platforms))
        };
        let several = index(&[
            ("linux", "arm64", None),
            ("windows", "amd64", None),
            ("linux", "amd64", Some("v3")),
            ("linux", "amd64", None),
        ]);
        assert!(is_index(&several));
        assert_eq!(choose(&several, "linux/amd64").unwrap(), Digest::of(&[3]));
        assert_eq!(choose(&several, "linux/amd64/v3").unwrap(), Digest::of(&[2]));
        assert_eq!(choose(&several, "linux/amd64/v2").unwrap_err().class(), "platform");
        let none = index(&[("linux", "arm64", None), ("unknown", "unknown", None)]);
        let error = choose(&none, "linux/amd64").unwrap_err();
        assert_eq!(error.class(), "platform");
        assert!(error.to_string().contains("linux/arm64"), "{error}");
        assert!(!error.to_string().contains("unknown"), "{error}");
        let many: Vec<_> = (0..100).map(|number| format!("os{number}")).collect();
        let many: Vec<_> = many.iter().map(|os| (os.as_str(), "x", None)).collect();
        let error = choose(&index(&many), "linux/amd64").unwrap_err().to_string();
        assert!(error.ends_with(" and 88 more"), "{error}");
    }
}
