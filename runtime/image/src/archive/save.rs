//! Writes images as one archive that both kinds of reader take: an OCI layout, and beside it Docker's `manifest.json`.
//!
//! Equal images give equal bytes. Blobs are hashed on their way, so that damage on this disk is found and not handed on.

use super::layout::{FULL_NAME, REF_NAME, blob};
use super::listed::within;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest::INDEX_TYPE;
use crate::store::{Image, Store, parse_reference};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use tar::{Builder, EntryType, Header};

impl Store {
    /// Writes images. `to`: names where, for messages.
    ///
    /// # Errors
    /// As [`Store::resolve`], and class `too-large` for more than one file may have, before a byte is written; then [`ImageError`] of class `corrupt`, `io` or `disk-full`.
    pub fn save(&self, names: &[String], to: &Path, out: impl Write) -> Result<Vec<Image>> {
        let _in_use = self.use_lock()?;
        within(0, names.len())?;
        let images = names.iter().map(|name| self.resolve(name)).collect::<Result<Vec<_>>>()?;
        within(images.iter().map(|image| image.manifest_digest).collect::<BTreeSet<_>>().len(), images.len())?;
        let mut builder = Builder::new(out);
        let failed = |bytes| move |error: io::Error| ImageError::write(to, bytes, error);
        for folder in ["blobs/", "blobs/sha256/"] {
            builder
                .append(&header(folder, EntryType::Directory, 0).map_err(failed(0))?, io::empty())
                .map_err(failed(0))?;
        }
        let mut written = BTreeSet::new();
        for image in &images {
            let layers = image.layers.iter().map(|layer| ("layer", layer.digest));
            let documents = [("manifest", image.manifest_digest), ("configuration", image.config_digest)];
            for (what, digest) in documents.into_iter().chain(layers) {
                if written.insert(digest) {
                    self.save_blob(&mut builder, what, digest, to)?;
                }
            }
        }
        let documents = [
            ("index.json", index(&images)),
            ("manifest.json", manifests(&images)),
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
            ("repositories", repositories(&images)),
        ];
        for (name, document) in documents {
            let bytes = document.to_string().into_bytes();
            let header = header(name, EntryType::Regular, bytes.len() as u64).map_err(failed(0))?;
            builder.append(&header, &bytes[..]).map_err(failed(bytes.len() as u64))?;
        }
        builder.into_inner().and_then(|mut out| out.flush()).map_err(failed(0))?;
        Ok(images)
    }

    fn save_blob(
        &self,
        builder: &mut Builder<impl Write>,
        what: &'static str,
        digest: Digest,
        to: &Path,
    ) -> Result<()> {
        let path = self.blob_path(&digest);
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::MissingBlob { what, digest },
            _ => ImageError::io("open", &path)(error),
        })?;
        let size = file.metadata().map_err(ImageError::io("read", &path))?.len();
        let header =
            header(&blob(&digest), EntryType::Regular, size).map_err(|error| ImageError::write(to, size, error))?;
        let mut hashing = Hashing { inner: file.take(size), hasher: Sha256::new() };
        builder.append(&header, &mut hashing).map_err(|error| ImageError::write(to, size, error))?;
        let found = Digest::finish(hashing.hasher);
        if found == digest { Ok(()) } else { Err(ImageError::DamagedBlob { what, expected: digest, found }) }
    }
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

fn header(name: &str, kind: EntryType, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(kind);
    header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// Name and tag of an image; none of one that is known by its digest alone.
fn tagged(image: &Image) -> Option<(String, String)> {
    let reference = parse_reference(&image.reference).ok().filter(|reference| reference.digest().is_none())?;
    Some((reference.whole(), reference.tag().unwrap_or("latest").to_owned()))
}

fn index(images: &[Image]) -> serde_json::Value {
    let entries: Vec<_> = images
        .iter()
        .map(|image| {
            let mut entry = json!({
                "mediaType": image.media_type, "digest": image.manifest_digest, "size": image.manifest_size,
                "platform": {"os": "linux", "architecture": "amd64"},
            });
            if let Some((name, tag)) = tagged(image) {
                entry["annotations"] = json!({ FULL_NAME: name, REF_NAME: tag });
            }
            entry
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries})
}

/// One entry for each image, with all of its names.
fn manifests(images: &[Image]) -> serde_json::Value {
    let mut items: Vec<(&Image, Vec<&str>)> = Vec::new();
    for image in images {
        // Docker's readers know `busybox:1` by that name.
        let name = tagged(image).map(|_| image.familiar_name());
        match items.iter_mut().find(|(known, _)| known.manifest_digest == image.manifest_digest) {
            Some((_, names)) => names.extend(name),
            None => items.push((image, name.into_iter().collect())),
        }
    }
    let item = |(image, names): &(&Image, Vec<&str>)| {
        let layers: Vec<_> = image.layers.iter().map(|layer| blob(&layer.digest)).collect();
        json!({"Config": blob(&image.config_digest), "RepoTags": names, "Layers": layers})
    };
    items.iter().map(item).collect()
}

/// Which layer is on top under a name, as the oldest readers want it.
fn repositories(images: &[Image]) -> serde_json::Value {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for image in images {
        let familiar = image.familiar_name();
        if let (Some((_, tag)), Some(top)) = (tagged(image), image.layers.last()) {
            let name = familiar.strip_suffix(&format!(":{tag}")).unwrap_or(familiar);
            all.entry(name.to_owned()).or_default().insert(tag, top.digest.hex());
        }
    }
    json!(all)
}
