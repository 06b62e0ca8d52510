//! The page tables stage0 runs on: 4 GiB mapped to themselves, the shared window in 4 KiB pages, what surrounds it in 2 MiB
//! pages up to 1 GiB, the rest in pages of 1 GiB.
//!
//! stage0's start code writes them; a launch that enters it in 64-bit mode brings them, measured. Both are these bytes.
//! Source: AMD APM volume 2, §5.3 (long-mode paging), §15.34.5 (C-bit).

use crate::map::{C_BIT, PAGE, PAGE_TABLES_GPA, PAGE_TABLES_SIZE, SHARED_WINDOW_GPA};

/// Flags of an entry that leads to another table: present, writable, accessed.
pub const TABLE: u64 = 0x23;
/// Flags of a large page: present, writable, accessed, dirty, large.
pub const LARGE: u64 = 0xE3;
/// Flags of a page of 4 KiB: present, writable, accessed, dirty.
pub const SMALL: u64 = 0x63;
/// Where the table stands that maps the first GiB, in pages of 2 MiB.
pub const FIRST_GIB_GPA: u64 = PAGE_TABLES_GPA + 2 * PAGE as u64;
/// Where the table stands that maps the shared window.
pub const WINDOW_GPA: u64 = PAGE_TABLES_GPA + 3 * PAGE as u64;

/// The page tables, to lie at [`PAGE_TABLES_GPA`]; `encrypted`: with the C-bit in every entry, for SEV-SNP.
pub fn page_tables(encrypted: bool) -> [u8; PAGE_TABLES_SIZE as usize] {
    let c_bit = u64::from(encrypted) << C_BIT;
    let mut bytes = [0; PAGE_TABLES_SIZE as usize];
    let mut put = |table: usize, index: usize, entry: u64| {
        let at = table * PAGE + index * 8;
        bytes[at..at + 8].copy_from_slice(&(entry | c_bit).to_le_bytes());
    };
    put(0, 0, (PAGE_TABLES_GPA + PAGE as u64) | TABLE);
    put(1, 0, FIRST_GIB_GPA | TABLE);
    for index in 1..4 {
        put(1, index, (index as u64) << 30 | LARGE);
    }
    for index in 0..512 {
        put(2, index, (index as u64) << 21 | LARGE);
        put(3, index, (SHARED_WINDOW_GPA + ((index as u64) << 12)) | SMALL);
    }
    put(2, (SHARED_WINDOW_GPA >> 21) as usize, WINDOW_GPA | TABLE);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bytes::le64;

    /// Follows the tables as a processor does.
    fn walk(tables: &[u8], address: u64) -> (u64, bool) {
        let mut table = 0;
        for shift in [39, 30, 21, 12] {
            let entry = le64(tables, table + ((address >> shift) as usize & 511) * 8).unwrap();
            assert_eq!(entry & 3, 3, "{address:#x} is mapped and writable");
            let to = entry & 0x0007_FFFF_FFFF_F000;
            if shift == 12 || (entry & 0x80 != 0 && shift != 39) {
                return (to | (address & ((1 << shift) - 1)), entry >> C_BIT & 1 == 1);
            }
            table = (to - PAGE_TABLES_GPA) as usize;
        }
        unreachable!()
    }

    #[test]
    fn every_address_is_mapped_to_itself_and_private_where_memory_is_encrypted() {
        for encrypted in [false, true] {
            let tables = page_tables(encrypted);
            for address in (0..1 << 32).step_by((1 << 20) - 8).chain((SHARED_WINDOW_GPA..0x40_0000).step_by(PAGE)) {
                assert_eq!(walk(&tables, address), (address, encrypted));
            }
        }
    }
}
