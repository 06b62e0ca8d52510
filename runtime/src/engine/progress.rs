//! How far an operation is, for whoever waits for it.

use std::sync::Arc;

/// One step of an operation that takes a while.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The image is not here, and will be pulled.
    ImageMissing {
        /// Its name as it was asked for.
        name: &'a str,
    },
    /// A pull goes on.
    Pull(&'a coffer_image::Progress),
    /// Images went, to keep the rest to their limit.
    ImagesRemoved {
        /// Their names.
        names: &'a [String],
    },
    /// An entry of the image's ENV is left out.
    OddVariable {
        /// The entry, in the image's words.
        entry: &'a str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The image's HEALTHCHECK is left out: the host may run nothing in the box.
    HealthLeftOut,
}

/// Hears of progress. Called from the threads that do the work; must not block.
pub type ProgressFn = Arc<dyn Fn(Progress<'_>) + Send + Sync>;
