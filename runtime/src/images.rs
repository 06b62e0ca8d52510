//! Images as boxes use them: failures with their class, defaults and root file systems.

use std::collections::BTreeSet;

use coffer_image::{Digest, Freed, Image, ImageError, Store, VerityTable};
use coffer_rim::failure::DISK_FULL;
use coffer_rim::{Class, Failure, Foreign};
use coffer_spec::{ConfigDigest, ManifestDigest};

use crate::home::Home;
use crate::id::BoxId;
use crate::request::ImageDefaults;
use crate::state::BoxRecord;

/// Opens the store of a home.
///
/// # Errors
/// Class `config`.
pub fn open(home: &Home) -> Result<Store, Failure> {
    Store::open(home.images()).map_err(|error| of_image(&error))
}

/// An image failure with its class and hint.
pub fn of_image(error: &ImageError) -> Failure {
    let class = match error.class() {
        "usage" => Class::Usage,
        "not-found" => Class::NotFound,
        "unauthorized" => Class::Refused,
        "unreachable" | "too-many-requests" => Class::Unreachable,
        "platform" => Class::Platform,
        _ => Class::Config,
    };
    let failure = Failure::caused(class, error);
    match error.hint() {
        _ if error.class() == "disk-full" => failure.hint(DISK_FULL),
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What an image asks to be run as.
pub fn defaults(image: &Image) -> ImageDefaults {
    let config = &image.config;
    let env = config.env.iter().filter(|entry| why_odd(entry).is_none()).cloned().collect();
    ImageDefaults {
        reference: image.reference.clone(),
        config_digest: ConfigDigest::new(*image.config_digest.as_bytes()),
        manifest_digest: ManifestDigest::new(*image.manifest_digest.as_bytes()),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env,
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
    }
}

/// Why an entry of an image's ENV is no variable for a program, if it is none. Such an entry is left out and said, and stops no
/// image: some have them, and Docker runs those.
pub fn why_odd(entry: &str) -> Option<&'static str> {
    match entry.find('=') {
        None => Some("it has no ="),
        Some(0) => Some("it has no name"),
        _ if entry.contains('\0') => Some("it has a NUL"),
        // The kernel takes no longer ones (MAX_ARG_STRLEN).
        _ if entry.len() >= 128 << 10 => Some("it is longer than 128 KiB"),
        _ => None,
    }
}

/// The verity table as a spec writes it.
pub fn verity(table: &VerityTable) -> coffer_spec::VerityTable {
    coffer_spec::VerityTable {
        algorithm: table.algorithm.clone(),
        block_size: table.block_size,
        data_blocks: table.data_blocks,
        hash_start: table.hash_start,
        salt: table.salt.clone(),
        root_hash: table.root_hash.clone(),
    }
}

/// A box's record does not say which image it was made from, so nothing can be collected: it could be that box's.
#[derive(Debug, thiserror::Error)]
#[error("box {id} ({name}) was made from image \"{}\", which is no digest", Foreign(found))]
pub struct UnknownImage {
    /// Which box.
    pub id: BoxId,
    /// Its name.
    pub name: String,
    /// What its record says.
    pub found: String,
}

impl UnknownImage {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        format!(
            "no image was removed; remove that box with `coffer rm {}`, or bring back the state.db it was made in",
            self.id
        )
    }
}

/// Images that boxes were made from, which garbage collection must leave alone.
///
/// # Errors
/// [`UnknownImage`] where a record does not say which.
pub fn in_use(boxes: &[BoxRecord]) -> Result<BTreeSet<Digest>, UnknownImage> {
    let digest = |found: &BoxRecord| {
        let text = &found.options.image_digest;
        text.parse().map_err(|_| UnknownImage { id: found.id.clone(), name: found.name.clone(), found: text.clone() })
    };
    boxes.iter().map(digest).collect()
}

/// Collects what neither a reference nor a box leads to; `None` where work in progress keeps the store busy.
///
/// `boxes`: reads the records of all boxes. It is called once nothing can be added any more, since a box that is being made
/// holds its root file system until it is recorded.
///
/// # Errors
/// Class `config`; what `boxes` fails with.
pub fn collect(
    store: &Store,
    boxes: impl FnOnce() -> Result<Vec<BoxRecord>, Failure>,
) -> Result<Option<Freed>, Failure> {
    let Some(collector) = store.collector().map_err(|error| of_image(&error))? else { return Ok(None) };
    let in_use = in_use(&boxes()?).map_err(|error| Failure::caused(Class::Config, &error).hint(error.hint()))?;
    collector.collect(&in_use).map(Some).map_err(|error| of_image(&error))
}

/// Removes images that were used longest ago until the store takes no more than `limit` bytes of the disk, but none that a box
/// was made from, and none of those that `came` just now; gives the names that are gone. Where work in progress keeps the store
/// busy it is left to the next time.
///
/// `boxes`: as for [`collect`].
///
/// # Errors
/// Class `config`; what `boxes` fails with.
pub fn keep_to(
    store: &Store,
    limit: Option<u64>,
    came: &[Digest],
    boxes: impl Fn() -> Result<Vec<BoxRecord>, Failure>,
) -> Result<Vec<String>, Failure> {
    let Some(limit) = limit else { return Ok(Vec::new()) };
    // What leads to no image goes first: none is removed for its sake.
    if store.disk().map_err(|error| of_image(&error))? <= limit || collect(store, &boxes)?.is_none() {
        return Ok(Vec::new());
    }
    let used = in_use(&boxes()?).map_err(|error| Failure::caused(Class::Config, &error).hint(error.hint()))?;
    let keep = |image: &Image| used.contains(&image.config_digest) || came.contains(&image.config_digest);
    let mut gone = Vec::new();
    for image in store.over(limit, keep).map_err(|error| of_image(&error))? {
        match store.remove(&image.reference) {
            Ok(removed) => gone.extend(removed.references),
            // Somebody else was faster.
            Err(error) if error.class() == "not-found" => {}
            Err(error) => return Err(of_image(&error)),
        }
    }
    if !gone.is_empty() {
        collect(store, boxes)?;
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::tests::options;
    use crate::state::tests::record;
    use coffer_image::Limits;
    use coffer_image::archive::Import;

    #[test]
    fn an_entry_of_env_that_is_no_variable_is_told_from_one_that_is() {
        for good in ["A=", "A=b=c", "a b=c", "É=1", "A.B-C=x", " =x"] {
            assert_eq!(why_odd(good), None, "{good:?}");
        }
        for odd in ["", "A", "=x", "A=\0", &format!("A={}", "x".repeat(128 << 10))] {
            assert!(why_odd(odd).is_some());
        }
    }

    fn with_digest(text: &str) -> BoxRecord {
        let options = crate::boxes::BoxOptions { image_digest: text.into(), ..options() };
        BoxRecord { options, ..record("one") }
    }

    #[test]
    fn what_a_box_was_made_from_and_what_came_just_now_stays_whatever_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let import = |name: &str| {
            let words = Import { reference: Some(name.into()), message: name.into(), ..Import::default() };
            let empty = [0; 1024];
            let pulled = store.import(std::path::Path::new("root"), &empty[..], &words, Limits::default());
            pulled.unwrap().image.config_digest
        };
        let (one, two, three) = (import("one"), import("two"), import("three"));
        let boxes = || Ok(vec![with_digest(&one.to_string())]);
        assert!(keep_to(&store, None, &[], boxes).unwrap().is_empty());
        assert!(keep_to(&store, Some(1 << 30), &[], boxes).unwrap().is_empty());
        assert_eq!(keep_to(&store, Some(1), &[two], boxes).unwrap(), ["docker.io/library/three:latest"]);
        assert!(store.resolve("one").is_ok() && store.resolve("two").is_ok() && store.resolve(&three.hex()).is_err());
        assert_eq!(keep_to(&store, Some(1), &[], || Ok(Vec::new())).unwrap().len(), 2);
    }

    #[test]
    fn no_image_goes_for_the_sake_of_what_leads_to_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("images")).unwrap();
        let words = Import { reference: Some("small".into()), ..Import::default() };
        store.import(std::path::Path::new("root"), &[0; 1024][..], &words, Limits::default()).unwrap();
        let limit = store.disk().unwrap() + (1 << 20);
        let garbage = ["partial", "blobs/sha256"].map(|folder| store.dir().join(folder).join("ab".repeat(32)));
        for path in &garbage {
            std::fs::write(path, vec![7; 2 << 20]).unwrap();
        }
        // Where it is not known that it is garbage, nothing is done.
        let busy = store.hold().unwrap();
        assert!(keep_to(&store, Some(limit), &[], || Ok(Vec::new())).unwrap().is_empty());
        assert!(store.resolve("small").is_ok() && garbage.iter().all(|path| path.exists()));
        drop(busy);
        assert!(keep_to(&store, Some(limit), &[], || Ok(Vec::new())).unwrap().is_empty());
        assert!(store.resolve("small").is_ok() && !garbage.iter().any(|path| path.exists()));
        assert_eq!(keep_to(&store, Some(1), &[], || Ok(Vec::new())).unwrap(), ["docker.io/library/small:latest"]);
    }

    #[test]
    fn a_digest_that_does_not_parse_stops_the_collection_and_names_the_box() {
        let good = format!("sha256:{}", "ab".repeat(32));
        assert_eq!(in_use(&[with_digest(&good)]).unwrap().len(), 1);
        for text in ["", "sha256:00", "\u{1b}[2J", &good.to_uppercase()] {
            let bad = with_digest(text);
            let error = in_use(&[with_digest(&good), bad.clone()]).unwrap_err();
            assert_eq!((&error.id, error.found.as_str()), (&bad.id, text));
            assert!(error.hint().contains(&bad.id.to_string()) && !error.to_string().contains('\u{1b}'), "{error}");

            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path().join("images")).unwrap();
            let root = dir.path().join("images/rootfs").join("ab".repeat(32) + "-v1.erofs");
            std::fs::write(&root, b"the root of a box").unwrap();
            let failure = collect(&store, || Ok(vec![bad])).unwrap_err();
            assert!(failure.class == Class::Config && root.exists(), "{failure}");
            assert!(collect(&store, || Ok(vec![with_digest(&good)])).unwrap().is_some() && root.exists());
            collect(&store, || Ok(Vec::new())).unwrap();
            assert!(!root.exists());
        }
    }
}
