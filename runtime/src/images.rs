//! Images as boxes use them: failures with their class, defaults and root file systems.

use std::collections::BTreeSet;

use coffer_image::{Image, ImageError, Store, VerityTable};
use coffer_rim::failure::DISK_FULL;
use coffer_rim::{Class, Failure};

use crate::home::Home;
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
        "unreachable" => Class::Unreachable,
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
    ImageDefaults {
        reference: image.reference.clone(),
        config_digest: image.config_digest.to_string(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        env: config.env.clone(),
        cwd: config.working_dir.clone(),
        user: config.user.clone(),
        stop_signal: config.stop_signal.clone().unwrap_or_default(),
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

/// Images that boxes were made from, which garbage collection must leave alone.
pub fn in_use(boxes: &[BoxRecord]) -> BTreeSet<coffer_image::Digest> {
    boxes.iter().filter_map(|found| found.options.image_digest.parse().ok()).collect()
}
