//! A root file system as an image: one layer, as it came, and a configuration.

use super::change::Changes;
use super::commit::named;
use super::members::Hashed;
use crate::decompress::DiffReader;
use crate::error::{ImageError, Result};
use crate::layer::Limits;
use crate::pull::Pulled;
use crate::store::Store;
use coffer_rim::chain;
use serde_json::json;
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
        let wanted = named(import.reference.as_deref())?;
        let _in_use = self.use_lock()?;
        let mut hashed = Hashed::default();
        let mut stream = BufReader::with_capacity(64 << 10, stream);
        let scratch = hashed.copy(self, &mut stream, limits.bytes.saturating_add(1)).map_err(|error| match error {
            ImageError::Io { action: "read", source, .. } => ImageError::io("read", name)(source),
            other => other,
        })?;
        let layer = hashed.finish();
        // What whoever was to write the stream leaves, where that failed.
        if layer.size == 0 {
            return Err(bad("it has nothing in it".to_owned()));
        }
        if layer.size > limits.bytes {
            return Err(ImageError::TooLarge { what: "bytes", limit: limits.bytes });
        }
        if let Some(found) = other_compression(layer.magic) {
            return Err(bad(format!("it is compressed with {found}: only gzip and zstd are read")));
        }
        let file = scratch.reopened().map_err(ImageError::io("open", scratch.path()))?;
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
        });
        self.admit_made(wanted, &config, [(layer.layer_type().to_owned(), layer.digest, layer.size)].into_iter())
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
