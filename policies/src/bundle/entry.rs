//! A file of a bundle, and the files that are not policies.

use sha2::{Digest as _, Sha256};

/// What says what a bundle is about; who signed it; its data.
pub(super) const MANIFEST: &str = ".manifest";
pub(super) const SIGNATURES: &str = ".signatures.json";
pub(super) const DATA: &str = "data.json";
/// One file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Its path, without a slash in front.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// Names these files, in whatever order they lie.
pub(super) fn digest(entries: &[&Entry]) -> [u8; 32] {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    let mut all = Sha256::new();
    for entry in sorted {
        for part in [entry.path.as_bytes(), &entry.bytes] {
            all.update((part.len() as u64).to_be_bytes());
            all.update(part);
        }
    }
    all.finalize().into()
}
