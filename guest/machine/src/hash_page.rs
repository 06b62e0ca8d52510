//! The measured page with the SHA-256 of kernel, initrd and command line.
//!
//! QEMU's `SevHashTable`: a GUID, a u16 length over all, then entries of GUID, u16 length, 32 bytes; at the start of an
//! otherwise zero page. Read strictly: each of the three entries exactly once, none of them zero, nothing else.
//! A launcher writes it into the ROM ([`crate::map::ROM_HASHES`]), with which it is measured, or into memory.
//! It is the page that `coffer_verifier::measure::KernelHashes` writes, as QEMU does: the verifier knows the format by itself,
//! and a test of the launch plan reads its page here.
//! Source: QEMU `target/i386/sev.c`, `SevHashTable`.

use crate::{Refusal, bytes::le16, map::PAGE};

/// The three hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// Of the bzImage.
    pub kernel: [u8; 32],
    /// Of the initrd; of nothing, if there is none.
    pub initrd: [u8; 32],
    /// Of the command line with its NUL.
    pub command_line: [u8; 32],
}

impl Hashes {
    /// Reads the page.
    ///
    /// # Errors
    /// [`Refusal::HashPage`].
    pub fn parse(page: &[u8; PAGE]) -> Result<Self, Refusal> {
        Self::read(page).ok_or(Refusal::HashPage)
    }

    fn read(page: &[u8; PAGE]) -> Option<Self> {
        if page.get(..16)? != TABLE_GUID || usize::from(le16(page, 16)?) != TABLE_LENGTH {
            return None;
        }
        let (entries, behind) = page.get(TABLE_HEADER..)?.split_at_checked(3 * ENTRY)?;
        if behind.iter().any(|byte| *byte != 0) {
            return None;
        }
        let (mut kernel, mut initrd, mut command_line) = (None, None, None);
        for entry in entries.chunks_exact(ENTRY) {
            let slot = match entry.get(..16)? {
                guid if guid == KERNEL_GUID => &mut kernel,
                guid if guid == INITRD_GUID => &mut initrd,
                guid if guid == COMMAND_LINE_GUID => &mut command_line,
                _ => return None,
            };
            let hash: [u8; 32] = entry.get(18..)?.try_into().ok()?;
            if usize::from(le16(entry, 16)?) != ENTRY || hash == [0; 32] || slot.replace(hash).is_some() {
                return None;
            }
        }
        Some(Self { kernel: kernel?, initrd: initrd?, command_line: command_line? })
    }

    /// Writes the page, entries in QEMU's order.
    pub fn to_page(&self) -> [u8; PAGE] {
        page(&[(COMMAND_LINE_GUID, self.command_line), (INITRD_GUID, self.initrd), (KERNEL_GUID, self.kernel)])
    }
}

fn page(entries: &[([u8; 16], [u8; 32])]) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[..16].copy_from_slice(&TABLE_GUID);
    page[16..18].copy_from_slice(&((TABLE_HEADER + entries.len() * ENTRY) as u16).to_le_bytes());
    for (to, (guid, hash)) in page[TABLE_HEADER..].chunks_exact_mut(ENTRY).zip(entries) {
        to[..16].copy_from_slice(guid);
        to[16..18].copy_from_slice(&(ENTRY as u16).to_le_bytes());
        to[18..].copy_from_slice(hash);
    }
    page
}

/// Bytes in front of the first entry.
pub const TABLE_HEADER: usize = 18;
/// Bytes of an entry: GUID, length, hash.
pub const ENTRY: usize = 50;
const TABLE_LENGTH: usize = TABLE_HEADER + 3 * ENTRY;
/// 9438d606-4f22-4cc9-b479-a793d411fd21, mixed-endian as all GUIDs here.
const TABLE_GUID: [u8; 16] =
    [0x06, 0xd6, 0x38, 0x94, 0x22, 0x4f, 0xc9, 0x4c, 0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21];
/// 97d02dd8-bd20-4c94-aa78-e7714d36ab2a
const COMMAND_LINE_GUID: [u8; 16] =
    [0xd8, 0x2d, 0xd0, 0x97, 0x20, 0xbd, 0x94, 0x4c, 0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a];
/// 44baf731-3a2f-4bd7-9af1-41e29169781d
const INITRD_GUID: [u8; 16] =
    [0x31, 0xf7, 0xba, 0x44, 0x2f, 0x3a, 0xd7, 0x4b, 0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d];
/// 4de79437-abd2-427f-b835-d5b172d2045b
const KERNEL_GUID: [u8; 16] =
    [0x37, 0x94, 0xe7, 0x4d, 0xd2, 0xab, 0x7f, 0x42, 0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b];

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Hashes = Hashes { kernel: [1; 32], initrd: [2; 32], command_line: [3; 32] };

    fn good() -> [([u8; 16], [u8; 32]); 3] {
        [(COMMAND_LINE_GUID, [3; 32]), (INITRD_GUID, [2; 32]), (KERNEL_GUID, [1; 32])]
    }

    #[test]
    fn reads_what_it_writes() {
        assert_eq!(Hashes::parse(&GOOD.to_page()), Ok(GOOD));
        assert_eq!(GOOD.to_page(), page(&good()));
    }

    #[test]
    fn absent_zero_repeated_foreign_and_trailing_entries_are_refused() {
        let [line, initrd, kernel] = good();
        let zero = (KERNEL_GUID, [0; 32]);
        for bad in [page(&[]), page(&[line, initrd]), page(&[line, initrd, zero])] {
            assert_eq!(Hashes::parse(&bad), Err(Refusal::HashPage));
        }
        assert_eq!(Hashes::parse(&page(&[line, kernel, kernel])), Err(Refusal::HashPage));
        assert_eq!(Hashes::parse(&page(&[line, ([9; 16], [1; 32]), kernel])), Err(Refusal::HashPage));
        assert_eq!(Hashes::parse(&page(&[line, initrd, kernel, kernel])), Err(Refusal::HashPage));
        let mut trailing = page(&good());
        trailing[PAGE - 1] = 1;
        assert_eq!(Hashes::parse(&trailing), Err(Refusal::HashPage));
        assert_eq!(Hashes::parse(&[0; PAGE]), Err(Refusal::HashPage));
    }

    #[test]
    fn every_byte_of_the_table_counts() {
        let good = page(&good());
        for at in 0..PAGE {
            let mut bad = good;
            bad[at] ^= 1;
            assert_ne!(Hashes::parse(&bad), Ok(GOOD), "byte {at}");
        }
    }
}
