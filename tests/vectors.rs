//! Where the genuine vectors are: `$COFFER_VECTORS`, or `shared/vectors` beside the repository. Included by the tests of
//! several crates, each one folder below the repository's.

use std::path::{Path, PathBuf};

/// Their folder `part`; where there is none, the skip is printed.
pub fn folder(part: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = std::env::var_os("COFFER_VECTORS").map_or(beside, PathBuf::from).join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED: no vectors at {}; set COFFER_VECTORS", folder.display());
    None
}
