//! An image with one layer more: what a box wrote over what it was made from.
//!
//! Trusts: the parent, which is in the store. Never: the layer, which is read as any that a registry brings; an image gets its name only when
//! its root file system was made.
//! Source: OCI Image Specification 1.1, "Image Layer Filesystem Changeset"; `docker commit`.

use super::change::Changes;
use super::members::{Hashed, Kept};
use crate::config;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::layer::Limits;
use crate::manifest::{CONFIG_TYPE, MANIFEST_TYPE, Manifest};
use crate::platform::Platform;
use crate::pull::Pulled;
use crate::store::{Image, Lock, Scratch, Store, parse_reference, unnamed};
use oci_client::Reference;
use serde_json::{Value, json};
use std::io::Read;

/// What an image with one layer more says of itself.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Its name; without one it has one made of its digest.
    pub reference: Option<String>,
    /// Instructions of a Dockerfile that change what it runs, as `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// A word of its history.
    pub message: String,
    /// Who made it.
    pub author: String,
    /// What ran in the box.
    pub created_by: String,
    /// When, RFC 3339.
    pub created: String,
}

impl Commit {
    /// Whether it can be done at all, before anything of a layer is read.
    ///
    /// # Errors
    /// Class `usage` for a name or an instruction that is none.
    pub fn check(&self) -> Result<()> {
        Changes::parse(&self.changes).map_err(ImageError::Change)?;
        named(self.reference.as_deref()).map(drop)
    }
}

/// The name that something gets which has its digest by itself.
pub(super) fn named(reference: Option<&str>) -> Result<Option<Reference>> {
    let named = reference.map(parse_reference).transpose()?;
    match named.filter(|found| found.digest().is_some()) {
        None => Ok(reference.map(parse_reference).transpose()?),
        Some(found) => Err(ImageError::InvalidReference {
            reference: found.whole(),
            reason: "what is made here gets its digest by itself".to_owned(),
        }),
    }
}

/// A layer that came, and that no image has yet. While it is held, no garbage collection takes it.
#[derive(Debug)]
pub struct NewLayer {
    scratch: Scratch,
    kept: Kept,
    _in_use: Lock,
}

impl Store {
    /// Takes a layer in: a plain tar stream.
    ///
    /// # Errors
    /// Class `too-large`, `disk-full` or `io`.
    pub fn take_layer(&self, mut stream: impl Read, limits: Limits) -> Result<NewLayer> {
        let in_use = self.use_lock()?;
        let mut hashed = Hashed::default();
        let scratch = hashed.copy(self, &mut stream, limits.bytes.saturating_add(1))?;
        let kept = hashed.finish();
        if kept.size > limits.bytes {
            return Err(ImageError::TooLarge { what: "bytes", limit: limits.bytes });
        }
        Ok(NewLayer { scratch, kept, _in_use: in_use })
    }

    /// Makes an image of another one and a layer over it.
    ///
    /// # Errors
    /// As [`Store::load`]; class `usage` for a name or an instruction.
    pub fn commit(&self, parent: &Image, layer: NewLayer, commit: &Commit) -> Result<Pulled> {
        let wanted = named(commit.reference.as_deref())?;
        let NewLayer { scratch, kept, _in_use } = layer;
        let document = self.read_blob("configuration", &parent.config_digest, config::MAX_BYTES)?;
        let malformed = |reason: &str| ImageError::Malformed {
            what: "configuration",
            digest: parent.config_digest,
            reason: reason.to_owned(),
        };
        let mut document: Value = serde_json::from_slice(&document).map_err(|error| malformed(&error.to_string()))?;
        let fields = document.as_object_mut().ok_or_else(|| malformed("it is no object"))?;
        let before = match fields.remove("config") {
            Some(Value::Object(before)) => before,
            _ => serde_json::Map::new(),
        };
        let changes = Changes::over(before, &commit.changes).map_err(ImageError::Change)?;
        let step = json!({
            "created": commit.created, "created_by": commit.created_by, "author": commit.author, "comment": commit.message,
        });
        fields.insert("created".to_owned(), json!(commit.created));
        fields.insert("author".to_owned(), json!(commit.author));
        fields.insert("config".to_owned(), changes.document());
        // What a builder says of the container it had is not so of this one.
        for of_builder in ["container", "container_config", "docker_version"] {
            fields.remove(of_builder);
        }
        let mut diff_ids: Vec<_> = parent.config.diff_ids.iter().map(Digest::to_string).collect();
        diff_ids.push(kept.digest.to_string());
        fields.insert("rootfs".to_owned(), json!({"type": "layers", "diff_ids": diff_ids}));
        let history = fields.entry("history").or_insert_with(|| json!([]));
        let mut steps = history.as_array().cloned().unwrap_or_default();
        // Of layers that no step accounts for: ours would be taken for the first of them.
        let told = steps.iter().filter(|step| step["empty_layer"] != json!(true)).count();
        steps.extend((told..parent.layers.len()).map(|_| json!({})));
        steps.push(step);
        *history = Value::from(steps);
        self.publish(scratch, &self.blob_path(&kept.digest))?;
        let below = parent.layers.iter().map(|layer| (in_oci(&layer.media_type), layer.digest, layer.size));
        let all = below.chain([(PLAIN.to_owned(), kept.digest, kept.size)]);
        self.admit_made(wanted, &document, all)
    }

    /// Makes an image of a configuration and layers that are here.
    pub(super) fn admit_made(
        &self,
        wanted: Option<Reference>,
        config: &Value,
        layers: impl Iterator<Item = (String, Digest, u64)>,
    ) -> Result<Pulled> {
        let config = config.to_string();
        let digest = Digest::of(config.as_bytes());
        self.put_blob(&digest, config.as_bytes())?;
        let of = |(kind, digest, size)| json!({"mediaType": kind, "digest": digest, "size": size});
        let bytes = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": config.len()},
            "layers": layers.map(of).collect::<Vec<Value>>(),
        })
        .to_string();
        let manifest = Manifest::parse(bytes.as_bytes())?;
        self.put_blob(&manifest.digest, bytes.as_bytes())?;
        let reference = wanted.map_or_else(|| unnamed(manifest.digest), Ok)?;
        self.check(&reference.whole(), &Platform::default(), &manifest)?;
        self.admit(&[reference], &manifest, None)
    }
}

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";

/// The same bytes under the name that a manifest of OCI has for them.
fn in_oci(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip" => format!("{PLAIN}+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{PLAIN}+zstd"),
        "application/vnd.docker.image.rootfs.diff.tar" => PLAIN.to_owned(),
        other => other.to_owned(),
    }
}
