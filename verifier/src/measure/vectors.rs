//! The launch digest vectors.

use std::path::PathBuf;

#[path = "../../../tests/vectors.rs"]
mod place;

/// Their folder; where there is none, the skip is printed.
pub(super) fn folder() -> Option<PathBuf> {
    place::folder("measure")
}

/// Printed on success too (`.config/nextest.toml`), so that a skip is seen.
#[test]
fn launch_vectors_are_here_or_the_skip_is_printed() {
    if let Some(folder) = folder() {
        println!("launch digest vectors: {}", folder.display());
    }
}
