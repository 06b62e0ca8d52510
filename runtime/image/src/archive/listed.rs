//! What an archive says it has.

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::store::parse_reference;

/// Images of one file.
const MAX_IMAGES: usize = 256;
/// Names in one file, of all its images together.
const MAX_NAMES: usize = 1000;

/// Whether one file may have so many images and names; the same for what is read and what is written.
pub(super) fn within(images: usize, names: usize) -> Result<()> {
    if images > MAX_IMAGES {
        return Err(ImageError::TooLarge { what: "images in one file", limit: MAX_IMAGES as u64 });
    }
    if names > MAX_NAMES {
        return Err(ImageError::TooLarge { what: "names in one file", limit: MAX_NAMES as u64 });
    }
    Ok(())
}

/// An image that a file has.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Names as the file has them.
    pub(super) names: Vec<String>,
    pub(super) what: What,
}

/// How a file has an image.
#[derive(Debug)]
pub(super) enum What {
    /// A manifest, or an index that leads to one.
    Document(Digest),
    /// A configuration and layers, by the names of members.
    Parts(Parts),
}

impl Default for What {
    fn default() -> Self {
        Self::Parts(Parts::default())
    }
}

/// Members that make an image.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) config: String,
    pub(super) layers: Vec<String>,
}

impl Listed {
    /// Whether somebody means this image: by a name as it stands there, or in any other spelling of the name.
    pub(super) fn is_called(&self, wanted: &str) -> bool {
        let whole = |name: &str| parse_reference(name).ok().map(|reference| reference.whole());
        self.names.iter().any(|name| name == wanted || whole(name).is_some_and(|name| whole(wanted) == Some(name)))
    }
}
