//! Pulling an image: manifest, configuration and layers, checked while they stream, retried a bounded number of times.
//!
//! A blob appears in the store only whole and verified; a connection that breaks is continued where it broke. What an
//! answer may take of our memory is fixed before the first byte of it is read, whoever sends it.
//! Source: OCI Distribution Specification 1.1, "Pull".

mod answer;
mod fetch;
mod registry;

use crate::config;
use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest::{Manifest, choose_platform, is_index};
use crate::store::{Image, Store, document_bytes, parse_reference};
use fetch::Fetcher;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How to pull. [`PullOptions::default`] is anonymous, with plain http for loopback registries only.
#[derive(Clone)]
pub struct PullOptions {
    /// Registries (`host:port` as in the reference) spoken to in plain http. Loopback addresses and `localhost` always
    /// are, as Docker does.
    pub insecure_registries: Vec<String>,
    /// Docker's configuration file, usually `~/.docker/config.json`; absent is fine.
    pub docker_config: Option<PathBuf>,
    /// Retries of one request after 429, 5xx, or a lost connection.
    pub retries: u32,
    /// Wait before the first retry; doubles each time, at most 5 s.
    pub backoff: Duration,
    /// Layers downloaded at once.
    pub parallel: usize,
    /// Called from the pull's tasks; must be quick.
    pub progress: Option<ProgressFn>,
}

/// Receives [`Progress`].
pub type ProgressFn = Arc<dyn Fn(&Progress) + Send + Sync>;

/// What a pull is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// The manifest is known; these layers (digest, bytes) belong to it.
    Resolved {
        /// Digest of the image manifest.
        manifest: Digest,
        /// Layers, bottom first.
        layers: Vec<(Digest, u64)>,
    },
    /// The layer is in the store already.
    Present {
        /// Layer.
        layer: Digest,
    },
    /// Part of a layer arrived.
    Downloading {
        /// Layer.
        layer: Digest,
        /// Bytes so far; may fall when a registry makes us start again.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The layer is verified and stored.
    Stored {
        /// Layer.
        layer: Digest,
    },
    /// A request failed and is tried again after a pause. Both texts are foreign: whoever shows them escapes them.
    Retrying {
        /// Reference or digest asked for.
        what: String,
        /// 1 for the first retry.
        attempt: u32,
        /// The failure.
        reason: String,
    },
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            docker_config: None,
            retries: 3,
            backoff: Duration::from_millis(250),
            parallel: 3,
            progress: None,
        }
    }
}

impl fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions")
            .field("insecure_registries", &self.insecure_registries)
            .field("docker_config", &self.docker_config)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Pulls an image and records it under its canonical reference.
    ///
    /// The process-wide rustls provider must be installed. Dropping the future stops the downloads and leaves nothing
    /// visible.
    ///
    /// # Errors
    /// See [`ImageError::class`]: `usage`, `not-found`, `unauthorized`, `unreachable`, `corrupt`, `platform`,
    /// `disk-full`, `config`.
    pub async fn pull(&self, reference: &str, options: &PullOptions) -> Result<Image> {
        let reference = parse_reference(reference)?;
        let _in_use = self.use_lock()?;
        let fetcher = Fetcher::new(self.clone(), &reference, options)?;

        let (top, bytes) = fetcher.manifest(&reference).await?;
        let (index, manifest_bytes) = if is_index(&bytes) {
            let chosen = choose_platform(&reference, top, &bytes)?;
            let (digest, inner) = fetcher.manifest(&reference.clone_with_digest(chosen.to_string())).await?;
            if digest != chosen {
                return Err(ImageError::CorruptBlob { what: "manifest", expected: chosen, found: digest });
            }
            if is_index(&inner) {
                let reason = "an index inside an index".to_owned();
                return Err(ImageError::Malformed { what: "index", digest: top, reason });
            }
            self.put_blob(&top, &bytes)?;
            (Some(top), inner)
        } else {
            (None, bytes)
        };
        let manifest = Manifest::parse(&manifest_bytes)?;
        self.put_blob(&manifest.digest, &manifest_bytes)?;

        if manifest.config_size > config::MAX_BYTES {
            return Err(ImageError::TooLarge { what: document_bytes("configuration"), limit: config::MAX_BYTES });
        }
        fetcher.blob("configuration", manifest.config, manifest.config_size).await?;
        let config = self.config(&manifest)?;
        if !config.is_linux_amd64() {
            return Err(ImageError::Platform { reference: reference.whole(), available: config.platform });
        }
        manifest.fits(&config)?;

        let layers: Vec<_> = manifest.layers.iter().map(|layer| (layer.digest, layer.size)).collect();
        fetcher.report(&Progress::Resolved { manifest: manifest.digest, layers: layers.clone() });
        fetch_layers(fetcher, layers, options.parallel).await?;
        self.record(&reference, manifest.digest, index)
    }
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
