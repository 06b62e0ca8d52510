//! The launch digest vectors: `$COFFER_VECTORS`, or `shared/vectors` beside the repository.

use std::path::{Path, PathBuf};

/// Their folder; where there is none, the skip is printed.
pub(super) fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = std::env::var_os("COFFER_VECTORS").map_or(beside, PathBuf::from).join("measure");
    if folder.join("vectors.json").is_file() {
        return Some(folder);
    }
    println!("SKIPPED: no vectors at {}; set COFFER_VECTORS", folder.display());
    None
}

/// Printed on success too (`.config/nextest.toml`), so that a skip is seen.
#[test]
fn launch_vectors_are_here_or_the_skip_is_printed() {
    if let Some(folder) = folder() {
        println!("launch digest vectors: {}", folder.display());
    }
}
