//! Pulling an image: manifest, configuration and layers, checked while they stream, retried a bounded number of times.
//!
//! A blob appears in the store only whole and verified; a connection that breaks is continued where it broke.
//! Source: OCI Distribution Specification 1.1, "Pull".

mod fetch;

use crate::config::ImageConfig;
use crate::digest::{Digest, DigestError};
use crate::error::{ImageError, Result, chain};
use crate::store::{Image, Manifest, Store, parse_reference};
use fetch::Fetcher;
use oci_client::Reference;
use oci_client::client::{Client, ClientConfig, ClientProtocol};
use oci_client::manifest::OciImageIndex;
use oci_spec::image::{Arch, Os};
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
    /// A request failed and is tried again after a pause.
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
        let fetcher = Fetcher::new(self.clone(), client(&reference, options)?, reference.clone(), options)?;

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

        if manifest.config_size > MAX_CONFIG_BYTES {
            return Err(ImageError::TooLarge { what: "bytes of image configuration", limit: MAX_CONFIG_BYTES });
        }
        fetcher.blob("configuration", manifest.config, manifest.config_size).await?;
        let config = ImageConfig::parse(&self.read_blob("configuration", &manifest.config)?)?;
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

fn client(reference: &Reference, options: &PullOptions) -> Result<Client> {
    let registry = reference.resolve_registry();
    let plain = is_loopback(registry) || options.insecure_registries.iter().any(|name| name == registry);
    let config = ClientConfig {
        protocol: ClientProtocol::HttpsExcept(plain.then(|| registry.to_owned()).into_iter().collect()),
        connect_timeout: Some(Duration::from_secs(10)),
        read_timeout: Some(Duration::from_secs(30)),
        user_agent: concat!("coffer/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| ImageError::Client { reason: chain(&error) })
}

/// Whether a registry address is this machine: 127.0.0.0/8, `[::1]` or `localhost`, with or without a port.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => registry.split(':').next().unwrap_or(registry),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// An index has `manifests`, a manifest has `layers`; media types are optional in both.
fn is_index(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Shape {
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Shape>(bytes).is_ok_and(|shape| shape.manifests.is_some() && shape.layers.is_none())
}

/// The linux/amd64 entry, the plain one before any microarchitecture level.
fn choose_platform(reference: &Reference, digest: Digest, bytes: &[u8]) -> Result<Digest> {
    let malformed = |reason: String| ImageError::Malformed { what: "index", digest, reason };
    let index: OciImageIndex = serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
    let platforms = || index.manifests.iter().filter_map(|entry| entry.platform.as_ref().map(|it| (entry, it)));
    let fitting = platforms()
        .filter(|(_, platform)| platform.os == Os::Linux && platform.architecture == Arch::Amd64)
        .min_by_key(|(_, platform)| platform.variant.clone().unwrap_or_default());
    if let Some((entry, _)) = fitting {
        return entry.digest.parse().map_err(|error: DigestError| malformed(error.to_string()));
    }
    // Entries of unknown platform are attestations of builders.
    let mut names: Vec<_> = platforms()
        .filter(|(_, platform)| platform.os.to_string() != "unknown")
        .map(|(_, platform)| format!("{}/{}", platform.os, platform.architecture))
        .collect();
    names.dedup();
    let available = if names.is_empty() { "unnamed platforms".to_owned() } else { names.join(", ") };
    Err(ImageError::Platform { reference: reference.whole(), available })
}

/// Image configurations are a few KiB; more than this is not one.
const MAX_CONFIG_BYTES: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_plain_http() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1", "127.8.9.1:5000", "[::1]:5000"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["docker.io", "localhost.example.org", "128.0.0.1:5000", "127.0.0.1.example.org", "[::2]:5000", ""] {
            assert!(!is_loopback(no), "{no}");
        }
    }

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
        let reference = parse_reference("busybox").unwrap();
        let choose = |bytes: &[u8]| choose_platform(&reference, Digest::of(bytes), bytes);
        let several = index(&[
            ("linux", "arm64", None),
            ("windows", "amd64", None),
            ("linux", "amd64", Some("v3")),
            ("linux", "amd64", None),
        ]);
        assert!(is_index(&several));
        assert_eq!(choose(&several).unwrap(), Digest::of(&[3]));
        let none = index(&[("linux", "arm64", None), ("unknown", "unknown", None)]);
        let error = choose(&none).unwrap_err();
        assert_eq!(error.class(), "platform");
        assert!(error.to_string().contains("linux/arm64"), "{error}");
        assert!(!error.to_string().contains("unknown"), "{error}");
    }
}
