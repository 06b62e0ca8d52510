//! Room on the database's disk that guests do not get.
//!
//! Every decision about a guest is a line of the trail, its refusals too. What is left at last belongs to operators, who must be able to
//! revoke that guest, and to archive the trail.
//! Never: reserves anything against other programs on that disk.

use std::path::Path;

use super::super::rows::RowsError;

/// That a guest may be decided about.
///
/// # Errors
/// [`RowsError::Reserved`].
pub fn leaves_reserve(database: &Path) -> Result<(), RowsError> {
    // Where that cannot be asked, the write itself says whether there is room.
    let Ok(there) = rustix::fs::statvfs(database) else { return Ok(()) };
    let bytes = |blocks: u64| blocks.saturating_mul(there.f_frsize);
    let (left, kept) = (bytes(there.f_bavail), kept_of(bytes(there.f_blocks)));
    if left < kept { Err(RowsError::Reserved { left, kept }) } else { Ok(()) }
}

/// How much of a disk of this size, in bytes.
const fn kept_of(size: u64) -> u64 {
    let part = size / 8;
    if part < MOST { part } else { MOST }
}

/// Some thousands of an operator's changes, and what SQLite's log may grow by meanwhile.
const MOST: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_small_disk_and_no_more_of_a_large_one() {
        assert_eq!(kept_of(8 << 20), 1 << 20);
        assert_eq!(kept_of(128 << 20), 16 << 20);
        assert_eq!(kept_of(1 << 40), 16 << 20);
    }
}
