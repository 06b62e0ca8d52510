//! A bound on the disk that the store takes: the images that were used longest ago go first.
//!
//! An image is used when its root file system is made or found, so when it is pulled and when a box is made from it. What is
//! on this disk is counted once, whoever shares it.

use crate::digest::Digest;
use crate::error::{ImageError, Result};
use crate::store::{Image, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;

impl Store {
    /// Bytes of the disk that blobs, root file systems and downloads that were begun take.
    ///
    /// # Errors
    /// Where a folder of the store cannot be read.
    pub fn disk(&self) -> Result<u64> {
        let mut all = 0;
        for folder in ["blobs/sha256", "rootfs", "partial"] {
            let dir = self.dir().join(folder);
            for entry in std::fs::read_dir(&dir).map_err(ImageError::io("read", &dir))? {
                let entry = entry.map_err(ImageError::io("read", &dir))?;
                // Who removes one meanwhile takes it off the sum.
                all += entry.metadata().map_or(0, |meta| meta.blocks() * 512);
            }
        }
        Ok(all)
    }

    /// Bytes of the disk that these images take together.
    pub fn taken_together<'a>(&self, images: impl IntoIterator<Item = &'a Image>) -> u64 {
        let mut by_config: BTreeMap<Digest, &Image> = BTreeMap::new();
        let mut blobs = BTreeSet::new();
        for image in images {
            by_config.insert(image.config_digest, image);
            blobs.extend(image.blobs());
        }
        let roots: u64 = by_config.values().map(|image| self.root_taken(image)).sum();
        roots + blobs.iter().map(|blob| self.taken_by(blob)).sum::<u64>()
    }

    /// Which images to remove so that the store takes at most `limit` bytes: as few as it takes, those used longest ago first,
    /// and none that `keep` says. Fewer than it would take where that is all there is.
    ///
    /// # Errors
    /// Where the index or a folder cannot be read.
    pub fn over(&self, limit: u64, keep: impl Fn(&Image) -> bool) -> Result<Vec<Image>> {
        let images = self.list()?.images;
        let mut left = self.disk()?;
        let mut users: BTreeMap<Digest, BTreeSet<Digest>> = BTreeMap::new();
        for image in &images {
            for part in image.blobs() {
                users.entry(part).or_default().insert(image.config_digest);
            }
        }
        // An image goes with all of its names.
        let kept: BTreeSet<_> = images.iter().filter(|image| keep(image)).map(|image| image.config_digest).collect();
        let mut going: BTreeMap<Digest, Vec<Image>> = BTreeMap::new();
        for image in images.into_iter().filter(|image| !kept.contains(&image.config_digest)) {
            going.entry(image.config_digest).or_default().push(image);
        }
        let mut going: Vec<_> = going.into_iter().collect();
        going.sort_by_key(|(_, names)| names.iter().map(|image| self.last_used(image)).max());
        let mut chosen = Vec::new();
        for (config, names) in going {
            if left <= limit {
                break;
            }
            for image in &names {
                for part in image.blobs() {
                    let shared = users.get_mut(&part).is_some_and(|users| {
                        users.remove(&config);
                        !users.is_empty()
                    });
                    if !shared && users.remove(&part).is_some() {
                        left = left.saturating_sub(self.taken_by(&part));
                    }
                }
            }
            left = left.saturating_sub(names.first().map_or(0, |image| self.root_taken(image)));
            chosen.extend(names);
        }
        Ok(chosen)
    }
}
