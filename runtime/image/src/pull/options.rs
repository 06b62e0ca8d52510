//! How a pull is done, and what it says of itself meanwhile.

use crate::digest::Digest;
use crate::layer::Dropped;
use crate::platform::Platform;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How to pull. [`PullOptions::default`] is anonymous, with plain http for loopback registries only.
#[derive(Clone)]
pub struct PullOptions {
    /// Registries (`host:port` as in the reference) spoken to in plain http. Loopback addresses and `localhost` always
    /// are, as Docker does.
    pub insecure_registries: Vec<String>,
    /// Other registries to ask in place of one, in this order, before the registry itself.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Docker's configuration file, usually `~/.docker/config.json`; absent is fine.
    pub docker_config: Option<PathBuf>,
    /// Platform wanted of an image that is there for several.
    pub platform: Platform,
    /// Retries of one request after 429, 5xx, or a lost connection.
    pub retries: u32,
    /// Wait before the first retry; doubles each time, at most 5 s.
    pub backoff: Duration,
    /// Longest wait that a registry may ask for (`Retry-After`). One that asks for more is not waited for.
    pub patience: Duration,
    /// How slow a registry may be.
    pub pace: Pace,
    /// Layers downloaded at once.
    pub parallel: usize,
    /// Called from the pull's tasks; must be quick.
    pub progress: Option<ProgressFn>,
}

/// How slow a registry may be: a byte now and then, for ever, is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Within this an answer begins; one that is small (a token, a manifest, a refusal) is whole within it too.
    pub within: Duration,
    /// So many bytes of a layer come in each such time, or the connection is given up and another try made.
    pub bytes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { within: Duration::from_mins(1), bytes: 64 << 10 }
    }
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
    /// A mirror has not what is wanted, and the next registry is asked. The reason is foreign.
    NextRegistry {
        /// The mirror.
        mirror: String,
        /// The failure.
        reason: String,
    },
    /// A layer or configuration is at the registry.
    Sent {
        /// Its digest.
        blob: Digest,
        /// Whether it was there before.
        present: bool,
    },
    /// The root file system was made, without all that the image has.
    LeftOut(Dropped),
    /// A request failed and is tried again after a pause. Both texts are foreign: whoever shows them escapes them.
    Retrying {
        /// Reference or digest asked for.
        what: String,
        /// 1 for the first retry.
        attempt: u32,
        /// The failure.
        reason: String,
        /// The pause.
        wait: Duration,
    },
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            insecure_registries: Vec::new(),
            mirrors: BTreeMap::new(),
            docker_config: None,
            platform: Platform::default(),
            retries: 3,
            backoff: Duration::from_millis(250),
            patience: Duration::from_mins(1),
            pace: Pace::default(),
            parallel: 3,
            progress: None,
        }
    }
}

impl fmt::Debug for PullOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions")
            .field("insecure_registries", &self.insecure_registries)
            .field("mirrors", &self.mirrors)
            .field("docker_config", &self.docker_config)
            .field("platform", &self.platform)
            .field("retries", &self.retries)
            .field("backoff", &self.backoff)
            .field("patience", &self.patience)
            .field("pace", &self.pace)
            .field("parallel", &self.parallel)
            .finish_non_exhaustive()
    }
}
