//! The files of a gzipped tar, within bounds: how long packed, how long unpacked, how many, and none but regular ones.

use std::{
    collections::BTreeSet,
    io::{Cursor, Read as _},
};

use super::{
    entry::Entry,
    error::{BUNDLE_LIMIT, BundleError},
};

/// Most that it may be unpacked, headers counted.
pub const UNPACKED_LIMIT: usize = 4 * 1024 * 1024;
/// Most files.
pub const BUNDLE_FILES: usize = 256;
/// A tar's headers and files begin at multiples of this.
const BLOCK: u64 = 512;
/// Longest path.
const PATH: usize = 512;

/// Every file of a bundle, in its order.
pub(super) fn entries(bundle: &str, bytes: &[u8]) -> Result<Vec<Entry>, BundleError> {
    if bytes.len() > BUNDLE_LIMIT {
        return Err(BundleError::TooLong { bundle: bundle.into() });
    }
    let archive = |message: String| BundleError::Archive { bundle: bundle.into(), message };
    let mut packed = Cursor::new(bytes);
    let mut unpacked = Vec::new();
    let most = UNPACKED_LIMIT as u64 + 1;
    let decoder = flate2::bufread::GzDecoder::new(&mut packed);
    decoder
        .take(most)
        .read_to_end(&mut unpacked)
        .map_err(|error| archive(format!("is no gzip stream, or a damaged one: {error}")))?;
    if unpacked.len() > UNPACKED_LIMIT {
        return Err(archive(format!("has more than {UNPACKED_LIMIT} bytes unpacked")));
    }
    if packed.position() != bytes.len() as u64 {
        return Err(archive(format!("has bytes behind its gzip stream, from {} on", packed.position())));
    }
    let mut end = 0;
    let (mut all, mut seen): (Vec<Entry>, _) = (Vec::new(), BTreeSet::new());
    let mut tar = tar::Archive::new(Cursor::new(&unpacked));
    for entry in tar.entries().map_err(|error| archive(format!("is no tar archive: {error}")))? {
        let mut entry = entry.map_err(|error| archive(format!("is no tar archive, or a damaged one: {error}")))?;
        let raw = String::from_utf8(entry.path_bytes().into_owned());
        let raw = raw.map_err(|_| archive("has a file whose path is no UTF-8".into()))?;
        let refused = |message: &str| BundleError::Entry {
            bundle: bundle.into(),
            file: raw.chars().take(PATH).flat_map(char::escape_default).collect(),
            message: message.into(),
        };
        end = entry.raw_file_position().saturating_add(entry.size()).next_multiple_of(BLOCK);
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        if kind != tar::EntryType::Regular {
            return Err(refused("is no regular file"));
        }
        let path = raw.strip_prefix("./").or_else(|| raw.strip_prefix('/')).unwrap_or(&raw);
        let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0']);
        if path.len() > PATH || !path.split('/').all(is_plain) || path.contains(char::is_control) {
            return Err(refused("is no plain path below the bundle"));
        }
        if all.len() == BUNDLE_FILES {
            return Err(refused("is one file more than a bundle may have"));
        }
        if !seen.insert(path.to_owned()) {
            return Err(refused("is there twice"));
        }
        let mut bytes = Vec::new();
        let size = entry.size();
        (&mut entry)
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| refused(&format!("cannot be read: {error}")))?;
        if bytes.len() as u64 != size {
            return Err(refused("ends too early"));
        }
        all.push(Entry { path: path.to_owned(), bytes });
    }
    // Behind its end another archive may stand, which other programs read.
    let rest = usize::try_from(end).ok().and_then(|end| unpacked.get(end..)).unwrap_or_default();
    if rest.iter().any(|byte| *byte != 0) {
        return Err(archive(format!("has bytes behind its end, from {end} on")));
    }
    if all.is_empty() {
        return Err(archive("holds no file".into()));
    }
    Ok(all)
}
