//! The spec disk: how the host hands a guest its workload spec, and its own claim of the time.
//!
//! Layout: 8-byte magic `COFSPEC1`, u32 little-endian length, the document, zeros to a multiple of 512; then, optionally,
//! 8-byte magic `COFHOST1` and u64 little-endian seconds since 1970, zeros to a multiple of 512.
//! Trusts: nothing. The document is what it says once its digest was checked; the host's record is a claim for good.

use core::fmt;

/// Starts the document record.
pub const SPEC_MAGIC: &[u8; 8] = b"COFSPEC1";
/// Starts the host's record.
pub const HOST_MAGIC: &[u8; 8] = b"COFHOST1";
/// Records start at multiples of this many bytes.
pub const SECTOR: usize = 512;
/// Longest document in bytes: what a spec may be, and with it the disk.
pub const DOCUMENT_LIMIT: usize = 256 << 10;
/// Most bytes ever read from the disk: the longest document between its head and the host's record.
pub const LIMIT: usize = (HEAD + DOCUMENT_LIMIT).next_multiple_of(SECTOR) + SECTOR;
/// Magic and length.
const HEAD: usize = SPEC_MAGIC.len() + 4;
const _: () = assert!(DOCUMENT_LIMIT <= u32::MAX as usize);

/// Why a disk holds no spec, or none can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecDiskError {
    /// Another magic.
    Magic,
    /// The document is longer than a spec may be.
    TooLong {
        /// Bytes stated.
        found: usize,
    },
    /// Ends inside the document.
    Short {
        /// Bytes stated.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
}

impl fmt::Display for SpecDiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("spec disk does not start with COFSPEC1"),
            Self::TooLong { found } => {
                write!(f, "spec disk states a document of {found} bytes, more than {DOCUMENT_LIMIT}")
            }
            Self::Short { expected, found } => {
                write!(f, "spec disk ends inside the document: {expected} bytes stated, {found} there")
            }
        }
    }
}

impl core::error::Error for SpecDiskError {}

/// What stands on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecDisk<'a> {
    /// The document's bytes; nobody believes them yet.
    pub document: &'a [u8],
    /// The host's clock, seconds since 1970; a claim.
    pub claimed_unix_seconds: Option<u64>,
}

impl<'a> SpecDisk<'a> {
    /// Parses the start of the disk, at most [`LIMIT`] bytes of it.
    ///
    /// # Errors
    /// [`SpecDiskError`]; the host's record is never a reason, without a readable one there is no claim.
    pub fn parse(disk: &'a [u8]) -> Result<Self, SpecDiskError> {
        let rest = disk.strip_prefix(SPEC_MAGIC).ok_or(SpecDiskError::Magic)?;
        let (length, rest) =
            rest.split_first_chunk::<4>().ok_or(SpecDiskError::Short { expected: 4, found: rest.len() })?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > DOCUMENT_LIMIT {
            return Err(SpecDiskError::TooLong { found: length });
        }
        let document = rest.get(..length).ok_or(SpecDiskError::Short { expected: length, found: rest.len() })?;
        let claimed_unix_seconds = disk
            .get((HEAD + length).next_multiple_of(SECTOR)..)
            .and_then(|record| record.strip_prefix(HOST_MAGIC))
            .and_then(<[u8]>::first_chunk::<8>)
            .map(|seconds| u64::from_le_bytes(*seconds));
        Ok(Self { document, claimed_unix_seconds })
    }

    /// Appends the disk's bytes, a multiple of 512, to an empty `out`.
    ///
    /// # Errors
    /// [`SpecDiskError::TooLong`]; nothing was appended.
    pub fn write(&self, out: &mut impl Extend<u8>) -> Result<(), SpecDiskError> {
        let length = self.document.len();
        if length > DOCUMENT_LIMIT {
            return Err(SpecDiskError::TooLong { found: length });
        }
        let head = SPEC_MAGIC.iter().copied().chain((length as u32).to_le_bytes());
        out.extend(padded(head.chain(self.document.iter().copied()), HEAD + length));
        if let Some(seconds) = self.claimed_unix_seconds {
            let record = HOST_MAGIC.iter().copied().chain(seconds.to_le_bytes());
            out.extend(padded(record, HOST_MAGIC.len() + 8));
        }
        Ok(())
    }
}

/// A record of `length` bytes, and zeros to the end of its last sector.
fn padded(record: impl Iterator<Item = u8>, length: usize) -> impl Iterator<Item = u8> {
    record.chain(core::iter::repeat_n(0, length.next_multiple_of(SECTOR) - length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    fn written(disk: SpecDisk<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        disk.write(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(document in prop::collection::vec(any::<u8>(), 0..2000), clock in any::<Option<u64>>()) {
            let disk = SpecDisk { document: &document, claimed_unix_seconds: clock };
            let bytes = written(disk);
            prop_assert_eq!(SpecDisk::parse(&bytes), Ok(disk));
        }

        #[test]
        fn never_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = SpecDisk::parse(&bytes);
            let _ = SpecDisk::parse(&[&SPEC_MAGIC[..], &bytes].concat());
        }
    }

    #[test]
    fn the_document_stands_verbatim_and_records_start_on_sectors() {
        for length in [0, 1, 500, 501, 5000] {
            let document = vec![0xA5; length];
            let disk = written(SpecDisk { document: &document, claimed_unix_seconds: Some(0x0102) });
            assert_eq!(&disk[..8], b"COFSPEC1");
            assert_eq!(disk[8..12], u32::try_from(length).unwrap().to_le_bytes());
            assert_eq!(&disk[12..12 + length], document.as_slice());
            let second = (12 + length).next_multiple_of(SECTOR);
            assert_eq!(&disk[second..second + 8], b"COFHOST1");
            assert_eq!(disk[second + 8..second + 16], 0x0102_u64.to_le_bytes());
            assert_eq!(disk.len(), second + SECTOR);
        }
    }

    #[test]
    fn the_longest_document_fits_what_is_read_and_a_longer_one_makes_no_disk() {
        let document = vec![b'#'; DOCUMENT_LIMIT];
        let disk = written(SpecDisk { document: &document, claimed_unix_seconds: Some(7) });
        assert!(disk.len() <= LIMIT);
        let read = SpecDisk::parse(&disk[..LIMIT.min(disk.len())]).unwrap();
        assert_eq!((read.document, read.claimed_unix_seconds), (&document[..], Some(7)));
        let longer = vec![b'#'; DOCUMENT_LIMIT + 1];
        let mut nothing = Vec::new();
        let refused = SpecDisk { document: &longer, claimed_unix_seconds: None }.write(&mut nothing);
        assert_eq!(refused, Err(SpecDiskError::TooLong { found: DOCUMENT_LIMIT + 1 }));
        assert!(nothing.is_empty());
    }

    #[test]
    fn refuses_another_magic_and_stated_lengths_that_are_not_there() {
        assert_eq!(SpecDisk::parse(b"COFSPEC2\0\0\0\0"), Err(SpecDiskError::Magic));
        let short = [&SPEC_MAGIC[..], &9_u32.to_le_bytes(), b"12345678"].concat();
        assert_eq!(SpecDisk::parse(&short), Err(SpecDiskError::Short { expected: 9, found: 8 }));
        let long = [&SPEC_MAGIC[..], &u32::MAX.to_le_bytes()].concat();
        assert!(matches!(SpecDisk::parse(&long), Err(SpecDiskError::TooLong { .. })));
    }
}
