//! Images in files: archives as `docker save` writes them, OCI layouts, and archives of those.
//!
//! What a file says is believed as little as a registry: names lead nowhere but to other members, each blob is hashed, and an
//! image gets its name only when its root file system was made. Members are bounded in number and together by
//! [`Limits::bytes`]; documents among them by their length, images and names by their number.
//! Never: follows a link out of a folder, unpacks a path onto the host.
//! Source: OCI Image Specification 1.1, "Image Layout"; Docker's image specification 1.2, "Combined Image JSON + Filesystem
//! Changeset Format".

mod change;
mod commit;
mod docker;
mod import;
mod layout;
mod listed;
mod members;
mod save;

use crate::error::{ImageError, Result};
use crate::layer::Limits;
use crate::manifest::Manifest;
use crate::platform::Platform;
use crate::pull::Pulled;
use crate::store::{Store, parse_reference, unnamed};
pub use change::ChangeError;
pub use commit::{Commit, NewLayer};
pub use import::Import;
use listed::{Listed, What, within};
use members::Members;
use oci_client::Reference;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

/// What to take of a file.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Platform wanted of an image that is there for several.
    pub platform: Platform,
    /// The one image wanted: a name or tag as the file has it, or `@N` for its N-th, from 0. Without it, all of them.
    pub only: Option<String>,
    /// Repository for an image that has a tag and no name.
    pub repository: Option<String>,
}

/// An image that a file brought.
#[derive(Debug)]
pub struct Loaded {
    /// The image and its root file system, under the last of its names.
    pub pulled: Pulled,
    /// Canonical references that lead to it now. One that had no name has one made of its digest.
    pub references: Vec<String>,
    /// Whether it had a name.
    pub named: bool,
}

impl Store {
    /// Takes images out of an archive, compressed or not. `name`: of the archive, for messages.
    ///
    /// # Errors
    /// As [`Store::pull`], without those of registries. Images that were whole before the failure stay.
    pub fn load(&self, name: &Path, archive: impl Read, options: &LoadOptions, limits: Limits) -> Result<Vec<Loaded>> {
        let in_use = self.use_lock()?;
        let members = Members::of_stream(self, name, archive, limits)?;
        let loaded = self.take(name, members, options);
        drop(in_use);
        loaded
    }

    /// As [`Store::load`], out of a folder with an OCI layout.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_folder(&self, folder: &Path, options: &LoadOptions, limits: Limits) -> Result<Vec<Loaded>> {
        let in_use = self.use_lock()?;
        let loaded = self.take(folder, Members::of_folder(folder, limits)?, options);
        drop(in_use);
        loaded
    }

    fn take(&self, name: &Path, mut members: Members, options: &LoadOptions) -> Result<Vec<Loaded>> {
        let bad = |reason: String| ImageError::Archive { path: name.to_owned(), reason };
        let mut listed = match layout::list(self, &members)? {
            Some(listed) => listed,
            None => docker::list(self, &members)?.ok_or_else(|| {
                bad("it has neither an index.json nor a manifest.json: it is no image (`coffer import` takes a root file system)".to_owned())
            })?,
        };
        within(listed.len(), listed.iter().map(|image| image.names.len()).sum())?;
        if let Some(only) = &options.only {
            let count = listed.len();
            let number = only.strip_prefix('@').and_then(|number| number.parse::<usize>().ok());
            let mut at = 0..count;
            let found = at.find(|at| number == Some(*at) || listed[*at].is_called(only));
            let found = found.ok_or_else(|| bad(format!("it has no image \"{only}\" among its {count}")))?;
            listed = vec![listed.swap_remove(found)];
        }
        if listed.is_empty() {
            return Err(bad("it has no image".to_owned()));
        }
        listed.iter().map(|image| self.take_one(name, &mut members, image, options)).collect()
    }

    fn take_one(&self, name: &Path, members: &mut Members, image: &Listed, options: &LoadOptions) -> Result<Loaded> {
        let bad = |reason: String| ImageError::Archive { path: name.to_owned(), reason };
        let (index, bytes) = match &image.what {
            What::Document(digest) => layout::manifest(self, members, name, *digest, &options.platform)?,
            What::Parts(parts) => (None, docker::manifest(self, members, parts)?),
        };
        let manifest = Manifest::parse(&bytes)?;
        let known = |name: &String| reference_of(name, options.repository.as_deref());
        let (mut references, mut seen) = (Vec::new(), BTreeSet::new());
        for reference in image.names.iter().filter_map(known) {
            let reference = reference?;
            // A digest in a name is a claim about the image, and a name of its own.
            if reference.digest().is_some_and(|digest| digest != manifest.digest.to_string()) {
                return Err(bad(format!("it calls an image {}, whose digest it has not", reference.whole())));
            }
            if seen.insert(reference.whole()) {
                references.push(reference);
            }
        }
        let named = !references.is_empty();
        if !named {
            references.push(unnamed(manifest.digest)?);
        }
        self.put_blob(&manifest.digest, &bytes)?;
        if let What::Document(_) = image.what {
            for (what, blob, size) in manifest.blobs() {
                if !self.holds_whole_blob(&blob, size) {
                    let member = layout::blob(&blob);
                    let kept =
                        members.keep(self, &member)?.ok_or_else(|| bad(format!("its {what} {blob} is missing")))?;
                    if kept.digest != blob {
                        return Err(ImageError::CorruptBlob { what, expected: blob, found: kept.digest });
                    }
                    if kept.size != size {
                        let (expected, found) = (size, kept.size);
                        return Err(ImageError::CorruptSize { what, digest: blob, expected, found });
                    }
                }
            }
        }
        let first = references.first().map(Reference::whole).unwrap_or_default();
        self.check(&first, &options.platform, &manifest)?;
        let pulled = self.admit(&references, &manifest, index)?;
        Ok(Loaded { pulled, references: references.iter().map(Reference::whole).collect(), named })
    }
}

/// What a name in a file is called here: a full name itself; a bare tag under the repository given, or nothing without one.
fn reference_of(name: &str, repository: Option<&str>) -> Option<Result<Reference>> {
    if name.contains(['/', ':', '@']) {
        return Some(parse_reference(name));
    }
    repository.map(|repository| parse_reference(&format!("{repository}:{name}")))
}
