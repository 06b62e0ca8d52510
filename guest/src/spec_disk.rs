//! The `coffer-spec` disk: the workload spec document, and beside it what the host claims.
//!
//! Layout: 8-byte magic `COFSPEC1`, u32 little-endian length, the document, zeros to a multiple of 512; then, optionally,
//! 8-byte magic `COFHOST1` and u64 little-endian seconds since 1970.
//! Trusts: nothing. The document is what it says once its digest was checked; the host's record is a claim for good.

use coffer_spec::Document;

/// Starts the document record.
pub const SPEC_MAGIC: &[u8; 8] = b"COFSPEC1";
/// Starts the host's record.
pub const HOST_MAGIC: &[u8; 8] = b"COFHOST1";
/// Records start at multiples of this many bytes.
pub const SECTOR: usize = 512;
/// Most bytes ever read from the disk.
pub const LIMIT: usize = Document::LIMIT + 2 * SECTOR;

/// Why the disk holds no spec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecDiskError {
    /// Another magic.
    #[error("spec disk does not start with COFSPEC1")]
    Magic,
    /// Longer than a spec may be.
    #[error("spec disk states a document of {found} bytes, more than {limit}")]
    TooLong {
        /// Bytes stated.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Ends inside the document.
    #[error("spec disk ends inside the document: {expected} bytes stated, {found} there")]
    Short {
        /// Bytes stated.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
}

/// What was read from the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecDisk {
    /// The document's bytes; nobody believes them yet.
    pub document: Vec<u8>,
    /// The host's clock, seconds since 1970; a claim.
    pub claimed_unix_seconds: Option<u64>,
}

impl SpecDisk {
    /// Parses the start of the disk, at most [`LIMIT`] bytes of it.
    ///
    /// # Errors
    /// [`SpecDiskError`]; the host's record is never a reason, without a readable one there is no claim.
    pub fn parse(disk: &[u8]) -> Result<Self, SpecDiskError> {
        let rest = disk.strip_prefix(SPEC_MAGIC).ok_or(SpecDiskError::Magic)?;
        let (length, rest) =
            rest.split_first_chunk::<4>().ok_or(SpecDiskError::Short { expected: 4, found: rest.len() })?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > Document::LIMIT {
            return Err(SpecDiskError::TooLong { found: length, limit: Document::LIMIT });
        }
        let document = rest.get(..length).ok_or(SpecDiskError::Short { expected: length, found: rest.len() })?;
        let host = (SPEC_MAGIC.len() + 4 + length).next_multiple_of(SECTOR);
        let claimed_unix_seconds = disk
            .get(host..)
            .and_then(|record| record.strip_prefix(HOST_MAGIC))
            .and_then(<[u8]>::first_chunk::<8>)
            .map(|seconds| u64::from_le_bytes(*seconds));
        Ok(Self { document: document.to_vec(), claimed_unix_seconds })
    }

    /// The disk's bytes, a multiple of 512.
    pub fn write(&self) -> Vec<u8> {
        let mut disk = SPEC_MAGIC.to_vec();
        disk.extend_from_slice(&u32::try_from(self.document.len()).unwrap_or(u32::MAX).to_le_bytes());
        disk.extend_from_slice(&self.document);
        disk.resize(disk.len().next_multiple_of(SECTOR), 0);
        if let Some(seconds) = self.claimed_unix_seconds {
            disk.extend_from_slice(HOST_MAGIC);
            disk.extend_from_slice(&seconds.to_le_bytes());
            disk.resize(disk.len().next_multiple_of(SECTOR), 0);
        }
        disk
    }
}

/// The clock a guest starts with: the host's claim, but nothing before the spec's floor.
pub fn first_clock(claimed: Option<u64>, not_before: u64) -> Option<u64> {
    match (claimed, not_before) {
        (None, 0) => None,
        (claimed, floor) => Some(claimed.unwrap_or(0).max(floor)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(document in prop::collection::vec(any::<u8>(), 0..2000), clock in any::<Option<u64>>()) {
            let disk = SpecDisk { document, claimed_unix_seconds: clock };
            prop_assert_eq!(SpecDisk::parse(&disk.write()).unwrap(), disk);
        }

        #[test]
        fn never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = SpecDisk::parse(&bytes);
            let _ = SpecDisk::parse(&[&SPEC_MAGIC[..], &bytes].concat());
        }
    }

    #[test]
    fn refuses_another_magic_and_stated_lengths_that_are_not_there() {
        assert_eq!(SpecDisk::parse(b"COFSPEC2\0\0\0\0"), Err(SpecDiskError::Magic));
        let short = [&SPEC_MAGIC[..], &9_u32.to_le_bytes(), b"12345678"].concat();
        assert_eq!(SpecDisk::parse(&short), Err(SpecDiskError::Short { expected: 9, found: 8 }));
        let long = [&SPEC_MAGIC[..], &u32::MAX.to_le_bytes()].concat();
        assert!(matches!(SpecDisk::parse(&long), Err(SpecDiskError::TooLong { .. })));
    }

    #[test]
    fn the_clock_never_starts_before_the_floor() {
        assert_eq!(first_clock(Some(5), 10), Some(10));
        assert_eq!(first_clock(None, 10), Some(10));
        assert_eq!(first_clock(Some(11), 10), Some(11));
        assert_eq!(first_clock(None, 0), None);
    }
}
