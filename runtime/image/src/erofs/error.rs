//! Why an image could not be written.

use std::io;

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// More than 2³² blocks.
    #[error("image is larger than 16 TiB")]
    TooLarge,
    /// The attributes of one file are more than 256 KiB, or of a kind [`super::keeps_xattr`] refuses.
    #[error("a file has more extended attributes than EROFS can hold")]
    Attributes,
    /// Reading the spool.
    #[error("cannot read file data: {0}")]
    Read(#[source] io::Error),
    /// Writing the image.
    #[error("cannot write {bytes} bytes: {source}")]
    Write {
        /// Size of the image.
        bytes: u64,
        /// The system's error.
        source: io::Error,
    },
}
