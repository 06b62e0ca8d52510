//! Names of images: parsed as Docker does, written as people do.

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use oci_client::{ParseError, Reference};

/// Where the names of images without one begin.
pub(super) const UNNAMED: &str = "localhost/unnamed@";

/// The name of an image that has none.
pub(crate) fn unnamed(manifest: Digest) -> Result<Reference> {
    parse_reference(&format!("{UNNAMED}{manifest}"))
}

/// A canonical reference as people write it: without `docker.io/` and `library/`.
pub fn familiar(reference: &str) -> &str {
    let Some(name) = reference.strip_prefix("docker.io/") else { return reference };
    name.strip_prefix("library/").unwrap_or(name)
}

/// Parses a reference as Docker does: default registry, `library/`, tag `latest`; only SHA-256 digests.
///
/// # Errors
/// [`ImageError::InvalidReference`] with the reason.
pub fn parse_reference(text: &str) -> Result<Reference> {
    let error = |reason: String| ImageError::InvalidReference { reference: text.to_owned(), reason };
    let reference: Reference = text.parse().map_err(|parse: ParseError| error(parse.to_string()))?;
    if let Some(digest) = reference.digest() {
        digest.parse::<Digest>().map_err(|parse| error(parse.to_string()))?;
    }
    Ok(reference)
}
