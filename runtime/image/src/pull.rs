//! Pulling an image: manifest, configuration and layers, checked while they stream, retried a bounded number of times.
//!
//! A blob appears in the store only whole and verified; a connection that breaks is continued where it broke. What an
//! answer may take of our memory is fixed before the first byte of it is read, whoever sends it.
//! The name moves last: only an image whose root file system was made gets it.
//! Source: OCI Distribution Specification 1.1, "Pull".

mod fetch;
pub(crate) mod options;
pub(crate) mod retry;

use crate::config;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::layer::{Dropped, Limits};
use crate::manifest::{Manifest, Search, is_index};
use crate::platform::Platform;
use crate::rootfs::Rootfs;
use crate::store::{Image, Store, document_bytes, parse_reference};
use fetch::Fetcher;
use oci_client::Reference;
pub use options::{Pace, Progress, ProgressFn, PullOptions};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// What [`Store::pull`] brought.
#[derive(Debug)]
pub struct Pulled {
    /// The image, as it is recorded now.
    pub image: Image,
    /// Its root file system.
    pub rootfs: Rootfs,
}

impl Store {
    /// Pulls an image, makes its root file system, and then records it under its canonical reference: a name never leads to
    /// an image that cannot be unpacked.
    ///
    /// The process-wide rustls provider must be installed. Dropping the future stops the downloads and leaves nothing
    /// visible.
    ///
    /// # Errors
    /// See [`ImageError::class`]: `usage`, `not-found`, `unauthorized`, `unreachable`, `corrupt`, `too-large`, `platform`,
    /// `disk-full`, `config`, `io`. The name leads where it led before.
    pub async fn pull(&self, reference: &str, options: &PullOptions) -> Result<Pulled> {
        let reference = parse_reference(reference)?;
        let _in_use = self.use_lock()?;
        for mirror in options.mirrors.get(reference.registry()).into_iter().flatten() {
            match self.pull_from(&reference, Some(mirror), options).await {
                Err(error) if may_be_elsewhere(&error) => {
                    let (mirror, reason) = (mirror.clone(), coffer_rim::chain(&error));
                    if let Some(tell) = &options.progress {
                        tell(&Progress::NextRegistry { mirror, reason });
                    }
                }
                ended => return ended,
            }
        }
        self.pull_from(&reference, None, options).await
    }

    async fn pull_from(&self, reference: &Reference, mirror: Option<&str>, options: &PullOptions) -> Result<Pulled> {
        let fetcher = Fetcher::new(self.clone(), reference, mirror, options).await?;
        let (top, bytes) = fetcher.manifest(reference).await?;
        let (index, manifest_bytes) = if is_index(&bytes) {
            let chosen = chosen(&fetcher, reference, &options.platform, (top, &bytes)).await?;
            self.put_blob(&top, &bytes)?;
            (Some(top), chosen)
        } else {
            (None, bytes)
        };
        let manifest = Manifest::parse(&manifest_bytes)?;
        self.put_blob(&manifest.digest, &manifest_bytes)?;

        if manifest.config_size > config::MAX_BYTES {
            return Err(ImageError::TooLarge { what: document_bytes("configuration"), limit: config::MAX_BYTES });
        }
        let (all, limit) = (manifest.layers.iter().map(|layer| layer.size), Limits::default().bytes);
        if all.fold(0, u64::saturating_add) > limit {
            return Err(ImageError::TooLarge { what: "bytes of layers", limit });
        }
        fetcher.blob("configuration", manifest.config, manifest.config_size).await?;
        self.check(&reference.whole(), &options.platform, &manifest)?;

        let layers: Vec<_> = manifest.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
        fetcher.report(&Progress::Resolved { manifest: manifest.digest, layers: layers.clone() });
        let tell = options.progress.clone();
        fetch_layers(fetcher, layers, options.parallel).await?;
        let (store, reference) = (self.clone(), reference.clone());
        let unpacking = tokio::task::spawn_blocking(move || store.admit(&[reference], &manifest, index)).await;
        let pulled = unpacking.map_err(|error| ImageError::Client { reason: error.to_string() })??;
        if let Some(tell) = tell.filter(|_| pulled.rootfs.dropped != Dropped::default()) {
            tell(&Progress::LeftOut(pulled.rootfs.dropped));
        }
        Ok(pulled)
    }
}

/// Whether another registry may have what this one has not, not whole, or not as we can take it.
fn may_be_elsewhere(error: &ImageError) -> bool {
    let kinds = [
        "not-found",
        "unauthorized",
        "unreachable",
        "too-many-requests",
        "corrupt",
        "registry",
        "too-large",
        "platform",
    ];
    kinds.contains(&error.class())
}

/// The manifest that an index leads to, through other indexes too: the first one reached, best entries first.
async fn chosen(
    fetcher: &Fetcher,
    reference: &Reference,
    wanted: &Platform,
    (top, bytes): (Digest, &[u8]),
) -> Result<Vec<u8>> {
    let mut search = Search::new(top, bytes, wanted)?;
    while let Some(digest) = search.next()? {
        let (found, inner) = fetcher.manifest(&reference.clone_with_digest(digest.to_string())).await?;
        if found != digest {
            return Err(ImageError::CorruptBlob { what: "manifest", expected: digest, found });
        }
        if let Some(manifest) = search.answer(digest, inner)? {
            return Ok(manifest);
        }
    }
    Err(search.nothing(&reference.whole()))
}

async fn fetch_layers(fetcher: Fetcher, mut layers: Vec<(Digest, u64)>, parallel: usize) -> Result<()> {
    layers.sort_unstable();
    layers.dedup();
    let permits = Arc::new(Semaphore::new(parallel.max(1)));
    let fetcher = Arc::new(fetcher);
    // Dropping the set, on the first failure or with this future, stops the other downloads.
    let mut tasks = JoinSet::new();
    for (digest, size) in layers {
        let (fetcher, permits) = (Arc::clone(&fetcher), Arc::clone(&permits));
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            fetcher.blob("layer", digest, size).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| ImageError::Client { reason: error.to_string() })??;
    }
    Ok(())
}
