//! A file of a bundle, and the files that are not policies.

use std::borrow::Cow;

use sha2::{Digest as _, Sha256};

use super::json::{canonical, once};

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

impl Entry {
    /// What counts of it, for its signature and for its digest: of JSON what it says, so that its layout does not.
    pub fn said(&self) -> Result<Cow<'_, [u8]>, String> {
        let file = self.path.rsplit_once('/').map_or(self.path.as_str(), |(_, file)| file);
        if file != DATA && file != MANIFEST {
            return Ok(Cow::Borrowed(&self.bytes));
        }
        let mut text = String::new();
        canonical(&once(&self.bytes)?, &mut text);
        Ok(Cow::Owned(text.into_bytes()))
    }
}

/// Names these files, in whatever order they lie: what one signature fits has one digest. Else which file, and why it has none.
pub(super) fn digest<'a>(entries: &[&'a Entry]) -> Result<[u8; 32], (&'a str, String)> {
    let mut sorted = entries.to_vec();
    sorted.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    let mut all = Sha256::new();
    for entry in sorted {
        let said = entry.said().map_err(|message| (entry.path.as_str(), message))?;
        for part in [entry.path.as_bytes(), &said] {
            all.update((part.len() as u64).to_be_bytes());
            all.update(part);
        }
    }
    Ok(all.finalize().into())
}
