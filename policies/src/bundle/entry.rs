//! A file of a bundle, and the files that are not policies.

/// What says what a bundle is about; who signed it; its data.
pub(super) const MANIFEST: &str = ".manifest";
pub(super) const SIGNATURES: &str = ".signatures.json";
pub(super) const DATA: &str = "data.json";
/// One file.
pub(super) struct Entry {
    /// Its path, without a slash in front.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}
