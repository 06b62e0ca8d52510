//! The spec disk: how the host hands a guest its workload spec, and its own claim of the time.
//!
//! Layout: magic `COFSPEC1`, u32 little-endian length, the document, zeros to 512; then magic `COFHOST1` and u64
//! little-endian Unix seconds, zeros to 512. The guest believes the first by its digest and the second not at all.

/// The disk's bytes.
///
/// # Panics
/// If the document is 4 GiB or longer, which `coffer_spec::Document::LIMIT` forbids.
pub fn spec_disk(document: &[u8], unix_seconds: u64) -> Vec<u8> {
    let length = u32::try_from(document.len()).expect("a document is at most 256 KiB");
    let mut disk = Vec::with_capacity(document.len() + 3 * SECTOR);
    disk.extend_from_slice(b"COFSPEC1");
    disk.extend_from_slice(&length.to_le_bytes());
    disk.extend_from_slice(document);
    pad(&mut disk);
    disk.extend_from_slice(b"COFHOST1");
    disk.extend_from_slice(&unix_seconds.to_le_bytes());
    pad(&mut disk);
    disk
}

const SECTOR: usize = 512;

fn pad(disk: &mut Vec<u8>) {
    disk.resize(disk.len().next_multiple_of(SECTOR), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_stands_verbatim_and_records_start_on_sectors() {
        for length in [0, 1, 500, 501, 5000] {
            let document = vec![0xa5; length];
            let disk = spec_disk(&document, 0x0102);
            assert_eq!(disk.len() % SECTOR, 0);
            assert_eq!(&disk[..8], b"COFSPEC1");
            assert_eq!(disk[8..12], u32::try_from(length).unwrap().to_le_bytes());
            assert_eq!(&disk[12..12 + length], document.as_slice());
            let second = (12 + length).next_multiple_of(SECTOR);
            assert_eq!(&disk[second..second + 8], b"COFHOST1");
            assert_eq!(disk[second + 8..second + 16], 0x0102u64.to_le_bytes());
            assert_eq!(disk.len(), second + SECTOR);
        }
    }
}
