//! The page that puts kernel, initrd and command line into the launch digest.
//!
//! QEMU's and OVMF's format, known here for itself, as in [`super::ovmf`]: it measures anybody's guests. Our firmware reads
//! the same page by the machine model of `guest/machine`; a test of the launch plan (`guest/platform`) compares the two.
//! Source: QEMU `target/i386/sev.c`, `PaddedSevHashTable`; OVMF `OvmfPkg/AmdSev`.

use sha2::{Digest, Sha256};

use super::{PAGE_SIZE, Page};

/// Bytes of the padded table.
pub const TABLE_SIZE: usize = 176;

/// SHA-256 of kernel, initrd and command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelHashes {
    kernel: [u8; 32],
    initrd: [u8; 32],
    command_line: [u8; 32],
}

impl KernelHashes {
    /// Hashes what is loaded. `initrd`: empty if there is none. `command_line`: without the trailing NUL, which is hashed
    /// with it; no byte of it is trimmed.
    pub fn of(kernel: &[u8], initrd: &[u8], command_line: &[u8]) -> Self {
        let mut line = Sha256::new();
        line.update(command_line);
        line.update([0]);
        Self {
            kernel: Sha256::digest(kernel).into(),
            initrd: Sha256::digest(initrd).into(),
            command_line: line.finalize().into(),
        }
    }

    /// From digests computed elsewhere; `command_line` covers the trailing NUL.
    pub const fn from_digests(kernel: [u8; 32], initrd: [u8; 32], command_line: [u8; 32]) -> Self {
        Self { kernel, initrd, command_line }
    }

    /// The table, padded to 16 bytes.
    pub fn table(&self) -> [u8; TABLE_SIZE] {
        let mut table = [0; TABLE_SIZE];
        table[..16].copy_from_slice(&TABLE_GUID);
        table[16..18].copy_from_slice(&(16 + 2 + 3 * ENTRY_SIZE as u16).to_le_bytes());
        let entries = [(COMMAND_LINE_GUID, self.command_line), (INITRD_GUID, self.initrd), (KERNEL_GUID, self.kernel)];
        for (index, (guid, hash)) in entries.iter().enumerate() {
            let at = 18 + index * ENTRY_SIZE;
            table[at..at + 16].copy_from_slice(guid);
            table[at + 16..at + 18].copy_from_slice(&(ENTRY_SIZE as u16).to_le_bytes());
            table[at + 18..at + ENTRY_SIZE].copy_from_slice(hash);
        }
        table
    }

    /// A page of zeros with the table at `offset`; `None` if it does not fit.
    pub fn page(&self, offset: usize) -> Option<Box<Page>> {
        let mut page = Box::new([0; PAGE_SIZE]);
        page.get_mut(offset..offset.checked_add(TABLE_SIZE)?)?.copy_from_slice(&self.table());
        Some(page)
    }
}

const ENTRY_SIZE: usize = 16 + 2 + 32;
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
