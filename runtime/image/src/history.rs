//! How an image came to be, step by step, as its configuration tells it; and its documents as they are.
//!
//! Trusts nothing: the texts are the image's own. Whoever shows them escapes them.

use crate::config;
use crate::error::{ImageError, Result};
use crate::store::{Image, Store};
use serde::Deserialize;

/// A step. Bottom first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryStep {
    /// When, as written.
    pub created: Option<String>,
    /// What was done.
    pub created_by: String,
    /// A word about it.
    pub comment: String,
    /// Compressed bytes of the layer it made; `None` where it made none.
    pub layer: Option<u64>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    history: Option<Vec<Wire>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

impl Store {
    /// An image's configuration, byte for byte.
    ///
    /// # Errors
    /// Class `corrupt` where it is gone or damaged.
    pub fn configuration(&self, image: &Image) -> Result<Vec<u8>> {
        self.read_blob("configuration", &image.config_digest, config::MAX_BYTES)
    }

    /// The steps of an image. Layers that no step accounts for come as steps without words.
    ///
    /// # Errors
    /// Class `corrupt` where the configuration is gone, damaged or cannot be read.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryStep>> {
        let bytes = self.configuration(image)?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| ImageError::Malformed {
            what: "configuration",
            digest: image.config_digest,
            reason: error.to_string(),
        })?;
        let mut sizes = image.layers.iter().map(|layer| layer.size);
        let mut steps = Vec::new();
        for wire in document.history.unwrap_or_default() {
            let layer = if wire.empty_layer == Some(true) { None } else { sizes.next() };
            steps.push(HistoryStep {
                created: wire.created,
                created_by: wire.created_by.unwrap_or_default(),
                comment: wire.comment.unwrap_or_default(),
                layer,
            });
        }
        steps.extend(sizes.map(|size| HistoryStep { layer: Some(size), ..HistoryStep::default() }));
        Ok(steps)
    }
}
