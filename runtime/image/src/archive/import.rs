//! A root file system as an image: one layer, as it came, and a configuration.

use super::change::Changes;
use super::members::Hashed;
use crate::decompress::DiffReader;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::layer::Limits;
use crate::manifest::{CONFIG_TYPE, MANIFEST_TYPE, Manifest};
use crate::platform::Platform;
use crate::pull::Pulled;
use crate::store::{Store, parse_reference, unnamed};
use coffer_rim::chain;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// How a root file system becomes an image.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Its name; without one it has one made of its digest.
    pub reference: Option<String>,
    /// Instructions of a Dockerfile that say what it runs, as `CMD ["sh"]`.
    pub changes: Vec<String>,
    /// What its history says.
    pub message: String,
    /// When, RFC 3339.
    pub created: String,
}

impl Store {
    /// Makes an image of a tar stream, plain or compressed by gzip or zstd. `name`: of the stream, for messages.
    ///
    /// # Errors
    /// As [`Store::load`]; class `usage` for an instruction.
    pub fn import(&self, name: &Path, stream: impl Read, import: &Import, limits: Limits) -> Result<Pulled> {
        let bad = |reason: String| ImageError::Archive { path: name.to_owned(), reason };
        let config = Changes::parse(&import.changes).map_err(ImageError::Change)?;
        let wanted = import.reference.as_deref().map(parse_reference).transpose()?;
        if wanted.as_ref().is_some_and(|reference| reference.digest().is_some()) {
            return Err(ImageError::InvalidReference {
                reference: import.reference.clone().unwrap_or_default(),
                reason: "what is imported gets its digest by itself".to_owned(),
            });
        }
        let _in_use = self.use_lock()?;
        let mut hashed = Hashed::default();
        let mut stream = BufReader::with_capacity(64 << 10, stream);
        let scratch = hashed.copy(self, &mut stream, limits.bytes.saturating_add(1))?;
        let layer = hashed.finish();
        if layer.size > limits.bytes {
            return Err(ImageError::TooLarge { what: "bytes", limit: limits.bytes });
        }
        if let Some(found) = other_compression(layer.magic) {
            return Err(bad(format!("it is compressed with {found}: only gzip and zstd are read")));
        }
        let file = File::open(scratch.path()).map_err(ImageError::io("open", scratch.path()))?;
        let mut unpacked = DiffReader::new(file, limits.bytes).map_err(|error| bad(chain(&error)))?;
        io::copy(&mut unpacked, &mut io::sink()).map_err(|error| match error.kind() {
            io::ErrorKind::QuotaExceeded => ImageError::TooLarge { what: "unpacked bytes", limit: limits.bytes },
            _ => bad(chain(&error)),
        })?;
        let (diff_id, _) = unpacked.finish();
        self.publish(scratch, &self.blob_path(&layer.digest))?;

        let config = json!({
            "architecture": "amd64", "os": "linux", "created": import.created, "config": config.document(),
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "history": [{"created": import.created, "comment": import.message}],
        })
        .to_string();
        let digest = Digest::of(config.as_bytes());
        self.put_blob(&digest, config.as_bytes())?;
        let bytes = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest, "size": config.len()},
            "layers": [{"mediaType": layer.layer_type(), "digest": layer.digest, "size": layer.size}],
        })
        .to_string();
        let manifest = Manifest::parse(bytes.as_bytes())?;
        self.put_blob(&manifest.digest, bytes.as_bytes())?;
        let reference = wanted.map_or_else(|| unnamed(manifest.digest), Ok)?;
        self.check(&reference.whole(), &Platform::default(), &manifest)?;
        self.admit(&[reference], &manifest, None)
    }
}

/// What Docker reads and we do not.
fn other_compression(magic: [u8; 4]) -> Option<&'static str> {
    match magic {
        [0xFD, b'7', b'z', b'X'] => Some("xz"),
        [b'B', b'Z', b'h', _] => Some("bzip2"),
        _ => None,
    }
}
