//! Where the genuine vectors are: `$COFFER_VECTORS`, or `shared/vectors` beside the repository. Included by the tests of
//! several crates, which stand in folders of the repository.

use std::path::{Path, PathBuf};

/// Their folder `part`; where there is none, the skip is printed.
pub fn folder(part: &str) -> Option<PathBuf> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(1).map(|folder| folder.join("shared/vectors"));
    let beside = || above.clone().find(|folder| folder.is_dir()).unwrap_or_else(|| "shared/vectors".into());
    let folder = std::env::var_os("COFFER_VECTORS").map_or_else(beside, PathBuf::from).join(part);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED: no vectors at {}; set COFFER_VECTORS", folder.display());
    None
}
