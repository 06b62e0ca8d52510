//! Why a tar stream cannot be read, and the numbers in one.

use coffer_rim::Foreign;
use std::io;

/// Why a tar stream cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The stream below failed: the compression is damaged.
    #[error("cannot read the tar stream: {0}")]
    Read(#[source] io::Error),
    /// The stream ends inside an entry.
    #[error("tar stream ends too early")]
    Truncated,
    /// A header's checksum is wrong.
    #[error("tar header has checksum {found}, its bytes sum to {expected}")]
    Checksum {
        /// In the header.
        found: u32,
        /// Of the header.
        expected: u32,
    },
    /// A header field is no number.
    #[error("tar entry \"{}\" has an unreadable {field}", Foreign(path))]
    Field {
        /// Path of the entry.
        path: String,
        /// Which field.
        field: &'static str,
    },
    /// A PAX record is damaged.
    #[error("tar stream holds a damaged extended header")]
    Pax,
    /// Long names and extended headers of one entry are longer than we read.
    #[error("tar stream holds an entry with {found} bytes of extended headers, at most {MAX_EXTENDED} are read")]
    ExtendedTooLong {
        /// Their length together, the one that was too much included.
        found: u64,
    },
    /// A kind of entry image layers do not have.
    #[error("tar entry \"{}\" has type {found:?}, which image layers do not have", Foreign(path))]
    Unsupported {
        /// Path of the entry.
        path: String,
        /// Type byte.
        found: char,
    },
}

/// Long names and extended headers of one entry together, as Go's archive/tar limits each; Linux allows 64 KiB of
/// attributes.
pub(super) const MAX_EXTENDED: u64 = 1 << 20;

/// A number of a PAX record.
pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Result<T, TarError> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(TarError::Pax);
    }
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or(TarError::Pax)
}
