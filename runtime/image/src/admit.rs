//! The last steps of every image on its way in, wherever it came from: its configuration is one for our guests, its root file
//! system is made, and then names lead to it.

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::manifest::Manifest;
use crate::platform::Platform;
use crate::pull::Pulled;
use crate::store::Store;
use oci_client::Reference;

impl Store {
    /// Whether an image whose configuration is here is one for our guests.
    pub(crate) fn check(&self, name: &str, wanted: &Platform, manifest: &Manifest) -> Result<()> {
        let config = self.config(manifest)?;
        if !config.is_linux_amd64() {
            let (reference, wanted) = (name.to_owned(), wanted.to_string());
            return Err(ImageError::Platform { reference, wanted, available: config.platform });
        }
        manifest.fits(&config)
    }

    /// Makes the root file system of an image all of whose blobs are here, then leads names to it. `references`: not empty.
    pub(crate) fn admit(&self, references: &[Reference], manifest: &Manifest, index: Option<Digest>) -> Result<Pulled> {
        let name = references.last().map(Reference::whole).unwrap_or_default();
        let image = self.image_of(&name, manifest.digest, index)?;
        let rootfs = self.rootfs_of_pulled(&image)?;
        self.record(references, &image)?;
        Ok(Pulled { image, rootfs })
    }
}
