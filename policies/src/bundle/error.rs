//! Why bytes are no bundle that is believed.

use super::signature::SignatureError;

/// Longest bundle, in bytes as packed.
pub const BUNDLE_LIMIT: usize = 1024 * 1024;

/// Why bytes are no bundle that is believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// Longer than a bundle may be.
    #[error("bundle {bundle} has more than {BUNDLE_LIMIT} bytes")]
    TooLong {
        /// Its name.
        bundle: String,
    },
    /// No gzipped tar, or one that is beyond the bounds.
    #[error("bundle {bundle}: {message}")]
    Archive {
        /// Its name.
        bundle: String,
        /// What is wrong.
        message: String,
    },
    /// An entry that a bundle may not have.
    #[error("bundle {bundle}: {file}: {message}")]
    Entry {
        /// Its name.
        bundle: String,
        /// The file in it.
        file: String,
        /// What is wrong, with line and column where it is a text.
        message: String,
    },
    /// Its signature is not what was asked for.
    #[error("bundle {bundle}")]
    Signature {
        /// Its name.
        bundle: String,
        /// Why.
        #[source]
        source: SignatureError,
    },
}

impl BundleError {
    /// What the operator can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::Archive { .. } => {
                "pack the folder of the policy: `tar -C DIR -czf NAME.tar.gz .`, or `opa build --bundle DIR`"
            }
            Self::Entry { .. } => {
                "a bundle holds .manifest, .signatures.json, data.json and *.rego, each below the manifest's roots, Rego v1 alone"
            }
            Self::Signature { source, .. } => source.hint(),
        }
    }
}
